"""A tiny language model with and without a template, for the tests of the server, of its page and of dialogues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import System, build, open_source

from luodi.core.bundle import Bundle

CHATML = (
    "{% for message in messages %}\n"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}\n"
    "{{ '<|im_start|>assistant\\n' }}\n"
    "{% endif %}"
)
LLAMA = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}\n"
    "{%- if messages[0]['role'] == 'system' -%}\n"
    "    {%- set first = messages[0]['content'] + '\\n\\n' -%}\n"
    "    {%- set turns = messages[1:] -%}\n"
    "{%- else -%}\n"
    '    {%- set first = "" -%}\n'
    "    {%- set turns = messages -%}\n"
    "{%- endif -%}\n"
    "{%- for message in turns -%}\n"
    "    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}\n"
    "    {{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}\n"
    "    {{- message['content'] | trim }}\n"
    "    {{- '<end_of_turn>\\n' }}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "    {{ '<start_of_turn>model\\n' }}\n"
    "{%- endif -%}"
)
LINES = [
    "The quick brown fox jumps over the lazy dog.", "How many moons has Mars? Two.", "今天天气很好，我们去公园吧。",
    "火星有几个卫星？两个。", "春眠不觉晓，处处闻啼鸟。", "To be, or not to be, that is the question.",
]  # fmt: skip
TURNS = [
    ("Hello!", "Hello, how are you?"),
    ("你好", "你好，很高兴见到你。"),
    ("Bye.", "Bye, see you."),
    ("再见", "再见！"),
]


def turned(question: str, answer: str) -> str:
    """Two turns as the ChatML template writes them."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"


def task(template: str | None, **text: Any) -> dict[str, Any]:
    field = {"tokens": "bpe", "length": 256, "vocabulary": 420, "forms": "keep", "case": "keep", "marks": True, **text}
    more = {} if template is None else {"template": template}
    return {"language": {"inputs": {"text": {"text": field}}, "sampling": {"max_tokens": 24}, **more}}


def talker(folder: Path, template: str | None = CHATML, epochs: int = 30) -> Bundle:
    """A GPT trained for a few seconds on a few lines and dialogues."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [*LINES, *(turned(*turn) for turn in TURNS)] * 6
    path = folder / "lines.jsonl"
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    source = {"table": {"path": str(path)}}
    model = {"gpt": {"layers": 2, "width": 48, "heads": 4, "context": 256, "positions": "rotary"}}
    system = System("talker", task(template), model, source, open_source(source, folder / "cache"))
    train = {"train": {"epochs": epochs, "batch_size": 8, "learning_rate": 0.004}}
    return build(system, folder / "work", "split", train)
