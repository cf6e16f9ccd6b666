/** What a program does that tells how it is in systemd's way; for scripts of a shell. */

/** Perl is part of every Debian; its `\n` in a message is a line end. */
const SEND =
  `use Socket; my $to = $ENV{NOTIFY_SOCKET} // exit 9; socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or exit 8; ` +
  `for (@ARGV) { s/\\\\n/\\n/g; send($s, $_, 0, pack_sockaddr_un($to)) // exit 7 }`;

/** The function `tell MESSAGE…`: each a datagram, sent by a process that then ends; 7: it could not be sent. */
export const TELL = `tell() { perl -e '${SEND}' "$@"; }; `;
