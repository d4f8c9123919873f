// The word lists of the generated language. Small on purpose: every word is frequent enough to be one token.
// Knows nothing of sentences.

export const girls = ["Anna", "Mia", "Lily", "Rosa", "Emma", "Clara", "Nina", "Ella", "Ruth", "Zoe", "Ivy", "Jane"];
export const boys = ["Tom", "Ben", "Max", "Sam", "Leo", "Jack", "Noah", "Paul", "Finn", "Carl", "Hugo", "Adam"];
export const names = [...girls, ...boys];

export const colors = [
  "red", "blue", "green", "yellow", "white", "black", "brown", "orange", "pink", "purple", "gray", "golden",
]; // biome-ignore format: a word list

export const things = [
  "ball", "kite", "hat", "boat", "drum", "doll", "bell", "book", "cup", "lamp",
  "coat", "box", "key", "bag", "ring", "chair", "flag", "scarf", "spoon", "clock",
]; // biome-ignore format: a word list

export const places = [
  "garden", "kitchen", "forest", "barn", "attic", "cellar", "library", "school",
  "market", "tower", "cave", "meadow", "stable", "tent", "bakery", "castle",
]; // biome-ignore format: a word list

export const foods = [
  "apples", "pears", "plums", "nuts", "grapes", "beans", "carrots", "cherries", "cakes", "pies", "berries", "lemons",
]; // biome-ignore format: a word list

export const jobs = [
  "baker", "farmer", "teacher", "doctor", "painter", "singer", "sailor", "driver", "dancer", "hunter", "gardener", "cook",
]; // biome-ignore format: a word list

/** An animal and what it says. */
export const animals = [
  { animal: "dog", plural: "dogs", sound: "woof" },
  { animal: "cat", plural: "cats", sound: "meow" },
  { animal: "cow", plural: "cows", sound: "moo" },
  { animal: "duck", plural: "ducks", sound: "quack" },
  { animal: "goat", plural: "goats", sound: "baa" },
  { animal: "lion", plural: "lions", sound: "roar" },
  { animal: "frog", plural: "frogs", sound: "croak" },
  { animal: "bird", plural: "birds", sound: "tweet" },
  { animal: "horse", plural: "horses", sound: "neigh" },
  { animal: "pig", plural: "pigs", sound: "oink" },
  { animal: "bee", plural: "bees", sound: "buzz" },
  { animal: "wolf", plural: "wolves", sound: "howl" },
] as const;

export const numbers = [
  "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
  "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]; // biome-ignore format: a word list

export const days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

export const opposites = [
  ["big", "small"], ["hot", "cold"], ["old", "new"], ["fast", "slow"], ["happy", "sad"], ["open", "closed"],
  ["long", "short"], ["light", "dark"], ["wet", "dry"], ["full", "empty"], ["hard", "soft"], ["early", "late"],
  ["loud", "quiet"], ["near", "far"], ["clean", "dirty"], ["strong", "weak"], ["rich", "poor"], ["high", "low"],
] as const; // biome-ignore format: a word list

/** Verbs of animals: what one does, what many do. */
export const verbs = [
  ["runs", "run"], ["plays", "play"], ["jumps", "jump"], ["sleeps", "sleep"], ["sings", "sing"], ["eats", "eat"],
  ["swims", "swim"], ["hides", "hide"], ["waits", "wait"], ["rests", "rest"],
] as const; // biome-ignore format: a word list

/** What has which color, everywhere and always. */
export const colorOf = [
  ["grass", "green"], ["snow", "white"], ["the sky", "blue"], ["the sun", "yellow"], ["coal", "black"],
  ["blood", "red"], ["mud", "brown"], ["rain", "gray"],
] as const; // biome-ignore format: a word list

export const weather = ["sunny", "rainy", "windy", "cold", "warm", "quiet"];
export const natures = ["old", "little", "big", "kind", "clever", "shy", "brave", "sleepy", "hungry"];
