// Files that the bundler turns into a path (kernel libraries) or text (migrations).
declare module "*.so" {
  const path: string;
  export default path;
}
declare module "*.sql" {
  const text: string;
  export default text;
}
declare module "*.safetensors" {
  const path: string;
  export default path;
}
declare module "*.jsonl" {
  const path: string;
  export default path;
}
