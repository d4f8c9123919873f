// Prints how far the emulated device is from the reference in one case of attention, in a process of its own: the kernels
// read the environment once.
import { attendSteps, type StepCase, stepsOf, wholeStep } from "../support/attention_step_case.ts";
import { opsOf } from "../support/kernels.ts";

const one: StepCase = { heads: [4, 2, 64], lengths: [40, 3], pageSize: 16, dtype: "bf16", norms: false, rope: false };
const expected = attendSteps(await opsOf("reference"), one, wholeStep(one));
const whole = attendSteps(await opsOf("simt"), one, wholeStep(one));
const single = attendSteps(await opsOf("simt"), one, stepsOf(one, 1));
const far = Math.max(...whole.map((value, i) => Math.abs(value - expected[i]!)));
console.log(JSON.stringify({ far, same: whole.every((value, i) => value === single[i]) }));
