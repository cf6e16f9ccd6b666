/** HTTP: the control interface over TCP, TLS and a unix socket. */

export { type App, type AppOptions, createApp } from "./app.ts";
export { type RunningServer, type ServerOptions, startServer } from "./server.ts";
export { depthOf } from "./routes/verify.ts";
export { parseRestoreBody } from "./restore_body.ts";
export { parseSince, parseTime } from "./times.ts";
export { storageView } from "./views_storage.ts";
export {
  checkpointResultView,
  checkpointView,
  diffView,
  folderView,
  leaseView,
  listedView,
  listFacts,
  plannedRootView,
  processView,
  repairView,
  restoreResultView,
  statusView,
  totalsView,
  verifyResultView,
  type View,
} from "./views.ts";
