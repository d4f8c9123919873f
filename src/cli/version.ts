// The program's version, embedded from package.json.

import description from "../../package.json" with { type: "json" };

/** e.g. "0.1.0" */
export const VERSION: string = description.version;
