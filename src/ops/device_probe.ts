// Whether a CUDA device could answer on this machine, told by files alone: opening the CUDA library takes too long for those
// who compute on the processor.
import { existsSync } from "node:fs";
import { join } from "node:path";

/** Device files of the NVIDIA driver: of Linux, and of Linux below Windows. */
const DEVICE_FILES = ["dev/nvidiactl", "dev/dxg"];

/** What stands in the way of any CUDA device, or null. @param root of the file system to look in */
export function driverObstacle(root = "/"): string | null {
  if (DEVICE_FILES.some((path) => existsSync(join(root, path)))) return null;
  return "there is no NVIDIA driver here (no /dev/nvidiactl)";
}
