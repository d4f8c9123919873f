"""Decode speed of transformers on PyTorch, to stand beside `graft bench decode`: random weights of a given config.json,
a static KV cache whose context is filled with random numbers, greedy tokens, one line of JSON per case on standard output.

    python bench/peers/pytorch_decode.py CONFIG.json --contexts 512,2048 --batches 1,16 --modes compiled,eager

"compiled" is what transformers itself does for a static cache: torch.compile(mode="reduce-overhead"), that is CUDA graphs on
a GPU. A case that does not fit or does not run is reported with its error. It stops before --minutes are over.
"""

import argparse
import inspect
import json
import sys
import time

try:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, StaticCache
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
except ImportError as error:
    sys.exit(f"error: {error}; it needs Python with torch and transformers")


def counts(text):
    return [int(part) for part in text.split(",")]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a config.json of transformers")
    parser.add_argument("--name", default="model")
    parser.add_argument("--contexts", type=counts, default=[512])
    parser.add_argument("--batches", type=counts, default=[1])
    parser.add_argument("--modes", default="compiled,eager")
    parser.add_argument("--tokens", type=int, default=32, help="steps of one repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--minutes", type=float, default=10.0)
    return parser.parse_args()


def make_model(path, device, dtype):
    with open(path) as file:
        raw = json.load(file)
    config = CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return AutoModelForCausalLM.from_config(config).eval()
    finally:
        torch.set_default_dtype(before)


def make_cache(model, batch, context, length, device, dtype):
    """A static cache that stands at `context`."""
    config = model.config
    heads = config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = StaticCache(config=config, max_cache_len=length, max_batch_size=batch, device=device, dtype=dtype)
    cache.early_initialization(batch, heads, size, dtype, torch.device(device))
    for layer in cache.layers:
        layer.keys.uniform_(-1, 1)
        layer.values.uniform_(-1, 1)
        if isinstance(getattr(layer, "cumulative_length", None), torch.Tensor):
            layer.cumulative_length.fill_(context)
    return cache


def wait(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@torch.no_grad()
def measure(model, mode, batch, context, arguments, dtype):
    device, steps = arguments.device, arguments.tokens
    warm_up = 8
    length = context + warm_up + arguments.repeats * steps
    cache = make_cache(model, batch, context, length, device, dtype)
    takes_positions = "cache_position" in inspect.signature(model.forward).parameters
    forward = model.forward
    if mode == "compiled":
        torch._dynamo.reset()
        forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=False, dynamic=False)
    ids = torch.zeros((batch, 1), dtype=torch.long, device=device)
    position = torch.full((1,), context, dtype=torch.long, device=device)

    def step():
        if mode == "compiled":
            torch.compiler.cudagraph_mark_step_begin()
        places = {"cache_position": position} if takes_positions else {}
        logits = forward(
            input_ids=ids, position_ids=position.repeat(batch, 1), past_key_values=cache, use_cache=True, **places
        ).logits
        ids.copy_(logits[:, -1].argmax(-1, keepdim=True))
        position.add_(1)

    for _ in range(warm_up):
        step()
    wait(device)
    seconds = []
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        for _ in range(steps):
            step()
        wait(device)
        seconds.append(time.perf_counter() - started)
    rates = [batch * steps / each for each in seconds]
    mean = sum(rates) / len(rates)
    deviation = (sum((rate - mean) ** 2 for rate in rates) / max(1, len(rates) - 1)) ** 0.5
    return {"mean": mean, "deviation": deviation, "median": sorted(rates)[len(rates) // 2], "best": max(rates)}


def main():
    arguments = parse_arguments()
    end = time.monotonic() + 60 * arguments.minutes
    dtype = getattr(torch, arguments.dtype)
    cuda = arguments.device.startswith("cuda")
    model = make_model(arguments.config, arguments.device, dtype)
    common = {
        "peer": "transformers",
        "model": arguments.name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "dtype": arguments.dtype,
    }
    # What users begin with comes first, so that a run that is cut short has it.
    for mode in arguments.modes.split(","):
        for batch in arguments.batches:
            for context in arguments.contexts:
                if time.monotonic() > end:
                    print(f"stopped after {arguments.minutes} minutes", file=sys.stderr)
                    return
                row = {**common, "mode": mode, "batch": batch, "context": context}
                try:
                    row["tokensPerSecond"] = measure(model, mode, batch, context, arguments, dtype)
                except Exception as error:  # one case that fails must not take the others with it
                    row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
                print(json.dumps(row), flush=True)
                if cuda:
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
