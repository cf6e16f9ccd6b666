/** Checkpoints: their repository in the store, the archiver that makes and restores them, and the swap of trees. */

export { Archiver, type ArchiverOptions, type ArchiverWork, type NewCheckpoint } from "./archiver_client.ts";
export type { ArchiverStore } from "./archiver_protocol.ts";
export { archiverMain } from "./archiver.ts";
export { type Cipher, openCipher, plainCipher } from "./cipher.ts";
export { configuredKey, type EncryptionKey, readEncryptionKey } from "./encryption_key.ts";
export { parseCheckpointReference } from "./checkpoint_reference.ts";
export { type CollectReport, type CollectResult, doomOf } from "./collect.ts";
export { type FolderListing, type ListedEntry, listFolder, readFile } from "./browse.ts";
export {
  CHECKPOINT_KINDS,
  type CheckpointFilter,
  isCheckpointKind,
  matchesFilter,
  parseLabelFilter,
} from "./checkpoint_filter.ts";
export { type CheckpointNotes, LABELS_LIMIT, notedRecord, withNotes } from "./checkpoint_notes.ts";
export { type ChangeKind, diffCheckpoints, type DiffResult } from "./diff.ts";
export { composeRestoreRoot } from "./compose.ts";
export { type CreateResult, SCANS_FOLDER } from "./create.ts";
export type { Hold, Released } from "./hold.ts";
export {
  type CheckpointTarget,
  findCheckpoint,
  HeadSession,
  type HeadState,
  nextOrdinal,
  readHead,
} from "./head.ts";
export {
  expired,
  type KeepFacts,
  type KeepReason,
  type KeepRules,
  type Kept,
  planKeep,
} from "./keep_rules.ts";
export {
  initialPrune,
  type PruneChange,
  type PruneEffect,
  type PruneEvent,
  type PruneLearned,
  type PruneMachine,
  type PruneNow,
  type PruneRequest,
  stepPrune,
} from "./prune_machine.ts";
export {
  automaticPrune,
  basisOf,
  doom,
  DOOMED_LIMIT,
  dueNames,
  forget,
  GC_GRACE_MS,
  isEmptyNames,
  type Names,
  recordsToForget,
  release,
  type Unwanted,
  whyItStays,
} from "./prune_rules.ts";
export { emptyHead, TAKE_OVER_ATTEMPTS } from "./head_rules.ts";
export { parseInnerPath } from "./path_filter.ts";
export { ProgressRate, type ProgressSpeed, type SpeedFigures, speedFigures } from "./progress_rate.ts";
export { rebuildIndexes, type RepairResult } from "./repair.ts";
export { type LostFile, type SalvageResult, salvageTo } from "./salvage.ts";
export { verifyRepository } from "./verify.ts";
export { type Finding, FINDINGS_LIMIT, type VerifyLevel, type VerifyResult } from "./verify_types.ts";
export { mayPrecede, openRepository, type OpenRepositoryOptions, readRepository } from "./repository.ts";
export { rekeyRepository, repositoryCipher } from "./repository_cipher.ts";
export {
  type PlannedRoot,
  planRestore,
  type PlanTarget,
  type ReadEnvironment,
  type RestorePlan,
  restoreTo,
  type RestoreToRequest,
  stageCheckpoint,
  type StageResult,
} from "./restore.ts";
export type { Difference, TreeDifferences } from "./differences.ts";
export { disposeHolder, findLeftovers, isEmptyRoot } from "./dispose.ts";
export {
  finishSwaps,
  moveAside,
  rollSwaps,
  swapIn,
  type SwapJournal,
  type SwapOutcome,
  type SwapRequest,
} from "./swap.ts";
export { excludedIn, findSwapPlace, type SwapMode, type SwapPlace } from "./swap_place.ts";
export { HEAD_KEY, INDEX_PREFIX, PACKS_PREFIX, REPOSITORY_KEY, ROOTS_PREFIX } from "./ids.ts";
