// The engine's thread of faulty_worker.ts in which no tokenizer can be read.
import "./faulty_worker.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";

Tokenizer.load = () => {
  throw new Error("The engine's thread reads a tokenizer");
};
