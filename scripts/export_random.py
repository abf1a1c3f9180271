"""Export a LLaVA-OneVision of full width with random weights, and say what it took beside what was planned.

What a checkpoint costs does not depend on what its weights are; what it answers does, so the answer means nothing.

    python scripts/export_random.py --size 0.5b --num-frames 32 --method uniform,infomerge --work /tmp/random
    python scripts/export_random.py --size 7b --layers 2 --num-frames 32 --method uniform --work /tmp/random
    python scripts/export_random.py --size 7b --num-frames 32 --dry-run --work /tmp/random    # no weights are written
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

ROOT = Path(__file__).resolve().parents[1]
VIDEO_TOKEN_ID = 151647
SHARD_BYTES = 1 << 30

#: Of an answer, in order.
TIMES = ("load", "frames", "encode", "compress", "prefill", "generate", "ttft")

#: Language models of the published sizes; the tower, SigLIP-so400m/14-384, is the same in all.
TEXT = {
    "0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 152000,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152128,
        "tie_word_embeddings": False,
    },
}


def config_of(size: str, layers: int | None, tower_layers: int) -> LlavaOnevisionConfig:
    """The published configuration, with fewer layers where asked for; all of the tower's but the last are used."""
    text = TEXT[size] | ({"num_hidden_layers": layers} if layers else {})
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=tower_layers + 1,
            num_attention_heads=16,
            image_size=384,
            patch_size=14,
            vision_use_head=False,
        ).to_dict(),
        text_config=Qwen2Config(
            **text, max_position_embeddings=32768, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
        ).to_dict(),
        image_token_index=151646,
        video_token_index=VIDEO_TOKEN_ID,
        vision_feature_layer=-2,
        tie_word_embeddings=text["tie_word_embeddings"],
    )


def shapes_of(config: LlavaOnevisionConfig) -> dict[str, torch.Size]:
    """Tensor → shape, as a checkpoint stores them."""
    with torch.device("meta"):
        tensors = LlavaOnevisionForConditionalGeneration(config).state_dict()
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    return {name: value.shape for name, value in tensors.items()}


def write_hollow_checkpoint(folder: Path, config: LlavaOnevisionConfig) -> None:
    """A checkpoint that has every tensor's place and none of its bytes: a sparse file and texts, enough for a plan."""
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    header, end = {}, 0
    for name, shape in shapes_of(config).items():
        start, end = end, end + 2 * shape.numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    write_texts(folder)


def write_checkpoint(folder: Path, config: LlavaOnevisionConfig) -> None:
    """Random bfloat16 weights in shards, and texts."""
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    written = 0

    def flush() -> None:
        name = f"model-{len(set(weight_map.values())) + 1:05}.safetensors"
        save_file(shard, folder / name)
        weight_map.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, shape in shapes_of(config).items():
        spread = shape[-1] ** -0.5 if len(shape) > 1 else 0.02
        tensor = torch.empty(shape, dtype=torch.bfloat16).normal_(std=spread, generator=generator)
        shard[name] = tensor + 1 if re.search(r"norm\d?\.weight", name) else tensor
        written += tensor.nbytes
        if written > SHARD_BYTES:
            flush()
            written = 0
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    write_texts(folder)


def write_texts(folder: Path) -> None:
    """A tokenizer of a few words, a chat template, and how an answer ends."""
    words = ["<unk>", "user", "assistant", "what", "happens", "in", "the", "video", "?"]
    vocabulary = {word: index for index, word in enumerate(words)} | {"<video>": VIDEO_TOKEN_ID}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    part = "{% for part in turn.content %}{{ part.text if part.type == 'text' else '<video>' }} {% endfor %}"
    (folder / "chat_template.jinja").write_text(f"{{% for turn in messages %}}user {part}{{% endfor %}}assistant")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 151645, "max_new_tokens": 16}))


class Measured:
    """A command of edgevtc in a process of its own: what it reports, how long it takes and what it holds.

    Attributes:
        report: What it printed on stdout, as JSON.
        steps: Step, by the progress on stderr → seconds.
        step_bytes: Step → most memory of its own; pages of mapped files, which the system can take back, not counted.
        seconds: Wall time.
        processor_s: Processor time.
        mapped_bytes: Most pages of mapped files at once.
    """

    def __init__(self, *words: object) -> None:
        start = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            [sys.executable, "-m", "edgevtc", *map(str, words), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None and process.stderr is not None
        self._step, self.step_bytes, self.mapped_bytes = "starting", {"starting": 0}, 0
        watch = threading.Thread(target=self._watch, args=[process.pid])
        watch.start()
        marks = [("starting", start)]
        for line in process.stderr:
            print(f"{time.monotonic() - start:8.1f} s  {line.rstrip()}", file=sys.stderr, flush=True)
            self._step = line.strip()
            marks.append((self._step, time.monotonic()))
        output = process.stdout.read()
        status = process.wait()
        self.seconds = time.monotonic() - start
        watch.join()
        if status:
            raise SystemExit(f"edgevtc {words[0]} failed")
        marks.append(("", time.monotonic()))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.steps = {name: end - begin for (name, begin), (_, end) in pairwise(marks)}
        self.report = json.loads(output)

    @property
    def peak_bytes(self) -> int:
        """Most memory of its own in any step."""
        return max(self.step_bytes.values())

    def _watch(self, process: int) -> None:
        status = Path(f"/proc/{process}/status")
        try:
            while match := re.search(r"RssAnon:\s+(\d+) kB\s+RssFile:\s+(\d+) kB", status.read_text()):
                held, mapped = (1024 * int(number) for number in match.groups())
                self.step_bytes[self._step] = max(self.step_bytes.get(self._step, 0), held)
                self.mapped_bytes = max(self.mapped_bytes, mapped)
                time.sleep(0.02)
        except FileNotFoundError:  # it ended
            return


#: Groups of an export's steps, by how their names begin → the step of the plan that they are of.
GROUPS = {
    "reading": "writing",
    "tracing": "writing",
    "fusing": "writing",
    "writing the decoder": "writing",
    "writing the embeddings": "writing",
    "computing the reference": "reference",
    "verifying encoder": "verifying_vision",
    "verifying compressors": "verifying_vision",
    "verifying vision": "verifying_vision",
    "verifying decoder": "verifying_decoder",
    "verifying an answer": "verifying_an_answer",
}


def main() -> None:
    """Write the checkpoint, export it, ask one question, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=TEXT, default="0.5b")
    parser.add_argument("--layers", type=int, help="decoder layers (default: all)")
    parser.add_argument("--tower-layers", type=int, default=26, help="vision layers in use (default: 26, all)")
    parser.add_argument("--num-frames", type=int, default=32)
    parser.add_argument("--method", default="uniform,infomerge,holitom")
    parser.add_argument("--retention-ratio", default="0.10")
    parser.add_argument("--weight-format", default="w8a8")
    parser.add_argument("--no-fused", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="say what it would take, by a checkpoint without bytes")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoint and bundle; emptied")
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    checkpoint, bundle = args.work / "checkpoint", args.work / "bundle"
    write = write_hollow_checkpoint if args.dry_run else write_checkpoint
    write(checkpoint, config_of(args.size, args.layers, args.tower_layers))
    stored = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    words = [checkpoint, "-o", bundle, "--num-frames", args.num_frames, "--frames-per-call", 4]
    words += ["--method", args.method, "--retention-ratio", args.retention_ratio, "--weight-format", args.weight_format]
    words += ["--saliency", "siglip_last_mean", "--frame-features", "mean", *(["--no-fused"] * args.no_fused)]
    if args.dry_run:
        raise SystemExit(
            subprocess.run([sys.executable, "-m", "edgevtc", "export", *map(str, words), "--dry-run"]).returncode
        )
    planned = Measured("export", *words, "--dry-run")
    exported = Measured("export", *words)
    asked = Measured("ask", ROOT / "samples" / "corridor.mp4", "what happens in the video ?", "--bundle", bundle)
    answer = asked.report
    plan, report = planned.report, exported.report
    rows = [
        ("checkpoint, bfloat16", "", f"{stored / 1e9:.2f} GB"),
        ("bundle on disk", f"{plan['disk_bytes'] / 1e9:.2f} GB", f"{report['size_bytes'] / 1e9:.2f} GB"),
        ("export: peak memory", f"{plan['peak_memory_bytes'] / 1e9:.1f} GB", f"{exported.peak_bytes / 1e9:.1f} GB"),
    ]
    for start, step in GROUPS.items():
        if held := [size for name, size in exported.step_bytes.items() if name.startswith(start)]:
            rows.append((f"… {start}", f"{plan['step_memory_bytes'][step] / 1e9:.1f} GB", f"{max(held) / 1e9:.1f} GB"))
    rows += [
        ("… pages of mapped files beside it", "", f"{exported.mapped_bytes / 1e9:.1f} GB"),
        ("export: time", "", f"{exported.seconds:.0f} s"),
        ("… of processors", "", f"{exported.processor_s:.0f} s"),
    ]
    for start in GROUPS:
        if seconds := sum(value for step, value in exported.steps.items() if step.startswith(start)):
            rows.append((f"… {start}", "", f"{seconds:.0f} s"))
    rows += [
        ("largest difference from torch", "", f"{report['worst_difference']:.1%}"),
        ("ask: peak memory", "", f"{asked.peak_bytes / 1e9:.1f} GB"),
        ("ask: tokens kept", "", f"{answer['tokens_kept']} of {answer['tokens_total']}"),
        *((f"ask: {name}", "", f"{answer[name + '_s']:.2f} s") for name in TIMES),
        ("ask: decoding", "", f"{answer['tokens_per_s']:.1f} tokens/s"),
    ]
    layers = f", {args.layers} layers" if args.layers else ""
    layers += f", {args.tower_layers} of the tower" if args.tower_layers != 26 else ""
    print(f"| {args.size}{layers}, {args.num_frames} frames, {args.weight_format} | planned | measured |")
    print("|---|---:|---:|")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


if __name__ == "__main__":
    main()
