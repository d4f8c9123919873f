// String formats as regular expressions of the supported subset. Years have four digits, times no leap seconds.

const LEAP_YEAR = "(([02468][048]|[13579][26])00|[0-9]{2}(0[48]|[2468][048]|[13579][26]))";
const DATE =
  "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))" +
  `|${LEAP_YEAR}-02-29)`;
const TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
const DURATION_TIME = "T([0-9]{1,9}H([0-9]{1,9}M)?([0-9]{1,9}S)?|[0-9]{1,9}M([0-9]{1,9}S)?|[0-9]{1,9}S)";
const DURATION_DAYS = "([0-9]{1,9}Y([0-9]{1,9}M)?([0-9]{1,9}D)?|[0-9]{1,9}M([0-9]{1,9}D)?|[0-9]{1,9}D)";
const LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const HOSTNAME = `${LABEL}(\\.${LABEL}){0,7}`;
const ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
const MAIL_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?";
const BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const IPV4 = `${BYTE}(\\.${BYTE}){3}`;
const H16 = "[0-9A-Fa-f]{1,4}";
const URI_CHARS = "([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})";

function ipv6(): string {
  const tail = (groups: number) =>
    groups === 0 ? "" : groups === 1 ? H16 : `((${H16}:){${groups - 2}}(${H16}:${H16}|${IPV4}))`;
  const forms = [tail(8)];
  // n groups before the "::", at most 7 - n behind it.
  for (let before = 0; before <= 7; before++) {
    const front = before === 0 ? ":" : `(${H16}:){${before}}`;
    const behind = Array.from({ length: 8 - before }, (_, n) => tail(n));
    forms.push(`${front}:(${behind.join("|")})`);
  }
  return `(${forms.join("|")})`;
}

/** What each supported format matches as a whole. */
export const FORMATS: Readonly<Record<string, string>> = {
  date: DATE,
  time: TIME,
  "date-time": `${DATE}T${TIME}`,
  duration: `P(${DURATION_DAYS}(${DURATION_TIME})?|${DURATION_TIME}|[0-9]{1,9}W)`,
  email: `${ATOM}(\\.${ATOM})*@(${MAIL_LABEL}\\.)+${MAIL_LABEL}`,
  hostname: HOSTNAME,
  ipv4: IPV4,
  ipv6: ipv6(),
  uuid: "[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
  uri: `[A-Za-z][A-Za-z0-9+.-]*:${URI_CHARS}+(\\?(${URI_CHARS}|[?])*)?(#(${URI_CHARS}|[?])*)?`,
};

/** Formats of JSON Schema that are not supported. Any other name is an annotation and constrains nothing. */
export const UNSUPPORTED_FORMATS: ReadonlySet<string> = new Set([
  "idn-email",
  "idn-hostname",
  "iri",
  "iri-reference",
  "json-pointer",
  "regex",
  "relative-json-pointer",
  "uri-reference",
  "uri-template",
]);
