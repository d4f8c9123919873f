// The server's log: one line per message, as text or JSON, from a level on. Knows no request.

export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const LOG_FORMATS = ["text", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** Facts beside a message; null and undefined ones are left out. */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** Says what the client is not told. The message never holds a prompt, an answer or a key. */
export type Log = (message: string, level?: LogLevel, fields?: LogFields) => void;

/** A log that writes whole lines, ended by a line break, by `write`. */
export function createLog(format: LogFormat, level: LogLevel, write: (line: string) => void): Log {
  const least = LOG_LEVELS.indexOf(level);
  const line = format === "json" ? jsonLine : textLine;
  return (message, own = "info", fields = {}) => {
    if (LOG_LEVELS.indexOf(own) < least) return;
    const given = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined);
    write(`${line(new Date().toISOString(), own, message, given)}\n`);
  };
}

type Given = readonly (readonly [string, unknown])[];

function jsonLine(time: string, level: LogLevel, message: string, fields: Given): string {
  return JSON.stringify({ time, level, message, ...Object.fromEntries(fields) });
}

/** `time level message key=value`; what is not a plain word is quoted, so that a value cannot look like another field. */
function textLine(time: string, level: LogLevel, message: string, fields: Given): string {
  const words = fields.map(([key, value]) => {
    const text = String(value);
    return ` ${key}=${/^[\w.:@/*-]+$/.test(text) ? text : JSON.stringify(text)}`;
  });
  return `${time} ${level === "info" ? "" : `${level} `}${message.replaceAll("\n", "\n  ")}${words.join("")}`;
}
