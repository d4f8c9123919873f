// First prompt ids by which a test asks faulty_worker.ts for a fault.

/** Throws where the engine steps, as a defect or a failed kernel would. */
export const THROWS = 13;
/** Blocks the thread for good in JavaScript. */
export const SPINS = 14;
/** Blocks the thread for good in a system call. */
export const WAITS = 15;
