// What bytes of text one token stands for, for the decoders whose tokens join as bytes: byte-level (GPT-2, Qwen, Llama 3)
// and byte-fallback (Llama 1 and 2). Other decoders have no such function and decode whole texts only.
import { isObject, type Json } from "./tokenizer_files.ts";

/** The bytes of a vocabulary piece, before any treatment of the start of a text. */
export type PieceDecoder = (piece: string) => Uint8Array;

/** Bytes by piece, and whether one space in front of a whole text is to be dropped (the tokenizer had put it there). */
export interface PieceDecoding {
  readonly bytes: PieceDecoder;
  readonly stripsFirstSpace: boolean;
}

const encoder = new TextEncoder();

/** @returns null for a decoder that is not of either family. */
export function pieceDecoding(decoder: unknown): PieceDecoding | null {
  if (!isObject(decoder)) return null;
  if (decoder.type === "ByteLevel") return { bytes: byteLevelBytes, stripsFirstSpace: false };
  if (decoder.type !== "Sequence" || !Array.isArray(decoder.decoders)) return null;
  return sequenceDecoding(decoder.decoders.filter(isObject));
}

/** Replace ▁ by a space, bytes of <0x..>, and perhaps one leading space stripped: the parts of Llama's decoder. */
function sequenceDecoding(parts: Json[]): PieceDecoding | null {
  const only = parts[0];
  if (parts.length === 1 && only?.type === "ByteLevel") return { bytes: byteLevelBytes, stripsFirstSpace: false };
  let fallback = false;
  let stripsFirstSpace = false;
  let from = "";
  let to = "";
  for (const part of parts) {
    const pattern = part.pattern;
    if (part.type === "Replace" && isObject(pattern) && typeof pattern.String === "string" && from === "") {
      from = pattern.String;
      to = String(part.content ?? "");
    } else if (part.type === "ByteFallback") {
      fallback = true;
    } else if (part.type === "Strip" && part.content === " " && part.start === 1 && part.stop === 0) {
      stripsFirstSpace = true;
    } else if (part.type !== "Fuse") {
      return null;
    }
  }
  const bytes = (piece: string): Uint8Array => {
    const hex = fallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(piece)?.[1] : undefined;
    if (hex !== undefined) return Uint8Array.of(Number.parseInt(hex, 16));
    return encoder.encode(from === "" ? piece : piece.replaceAll(from, to));
  };
  return { bytes, stripsFirstSpace };
}

/** Inverse of GPT-2's table: printable bytes stand for themselves, the others for code points from 256 up, in order. */
const byteOfChar: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    map.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return map;
})();

function byteLevelBytes(piece: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of piece) {
    const byte = byteOfChar.get(char);
    // A piece outside the table (an added token's text) stands for itself.
    if (byte === undefined) return encoder.encode(piece);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
