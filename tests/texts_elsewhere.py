"""Small models of texts as other people keep them: transformers folders with random weights and own tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

LINES = (
    "a fine film, with a heart as large as its cast", "the plot is thin and the jokes are thinner",
    "这部电影非常好看，演员的表现很好", "酒店的房间很小，服务也不好", "书的内容不错，值得一看",
    "she said that the night was long", "to be or not to be, that is the question", "床前明月光，疑是地上霜",
    "举头望明月，低头思故乡", "the quick brown fox jumps over the lazy dog", "机器学习 is a field of study",
    "dull, loud and far too long", "a joy from the first minute to the last", "早餐还可以，就是位置有点远",
    "nothing in it is new", "很喜欢这本书，已经看了两遍", "one of the best of the year", "质量太差，不会再买了",
    "it moves, it sings, it is alive", "白日依山尽，黄河入海流",
)  # fmt: skip
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
MIXED = (
    "a fine film",
    "这部电影非常好看",
    "a film 很好看, really",
    "\N{FAMILY} 😀 ok",
    "",
    "Ｆｕｌｌ１２３ THE [SEP] x",
)


def text_folder(kind: str, path: Path, **more: Any) -> Path:
    """A folder of that kind: its network with weights that matter, its tokenizer, its configs."""
    tokens, config, network = KINDS[kind]
    words = TOKENIZERS[tokens]()
    torch.default_generator.manual_seed(3)
    model = network()(config(len(words), **more))
    strong(model)
    model.save_pretrained(path)
    words.save_pretrained(path)
    return path


def strong(model: nn.Module) -> None:
    """Weights such that every token moves every output."""
    dice = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1:
                tensor.copy_(torch.randn(tensor.shape, generator=dice) * (tensor[0].numel() ** -0.5))
            elif "norm" in name.lower() or ".ln_" in name:
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=dice))


def change(path: Path, file: str, **values: Any) -> Path:
    """One JSON file of a folder with other values; None takes a key out."""
    held = json.loads((path / file).read_text(encoding="utf-8"))
    held = {key: value for key, value in {**held, **values}.items() if value is not None}
    (path / file).write_text(json.dumps(held), encoding="utf-8")
    return path


def _pieces(kind: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    if kind == "bert":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        made.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=300, special_tokens=marks))
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        made.decoder = decoders.WordPiece()
        return made
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>"] if kind == "gpt2" else ["<pad>", "<eos>", "<bos>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=330, special_tokens=marks, initial_alphabet=alphabet)
    )
    if kind == "gemma":
        made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return made


def _bert_words() -> Any:
    import transformers as t

    return t.PreTrainedTokenizerFast(
        tokenizer_object=_pieces("bert"), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def _gpt2_words() -> Any:
    import transformers as t

    end = "<|endoftext|>"
    return t.PreTrainedTokenizerFast(
        tokenizer_object=_pieces("gpt2"), bos_token=end, eos_token=end, unk_token=end, model_max_length=64
    )


def _gemma_words() -> Any:
    import transformers as t

    return t.PreTrainedTokenizerFast(
        tokenizer_object=_pieces("gemma"), bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        model_max_length=128, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


TOKENIZERS = {"bert": _bert_words, "gpt2": _gpt2_words, "gemma": _gemma_words}


def _t(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _bert(size: int, **more: Any) -> Any:
    return _t("BertConfig")(vocab_size=size, max_position_embeddings=64, pad_token_id=0, **{**SMALL, **more})


def _labelled(size: int, **more: Any) -> Any:
    names = {"id2label": {0: "bad", 1: "good", 2: "so so"}, "label2id": {"bad": 0, "good": 1, "so so": 2}}
    return _bert(size, **{**names, **more})


def _decider(size: int, **more: Any) -> Any:
    names = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    return _gpt2(size, **{**names, **more})


def _roberta(size: int, **more: Any) -> Any:
    # As published ones: two more places than tokens.
    return _t("RobertaConfig")(vocab_size=size, max_position_embeddings=66, pad_token_id=1, **{**SMALL, **more})


def _gpt2(size: int, **more: Any) -> Any:
    given = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    return _t("GPT2Config")(vocab_size=size, **{**given, **more})


def _llama(size: int, **more: Any) -> Any:
    given = {"num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 2, "eos_token_id": 1}
    return _t("LlamaConfig")(vocab_size=size, **{**SMALL, **given, "pad_token_id": 0, **more})


def _gemma(size: int, **more: Any) -> Any:
    given = {"num_key_value_heads": 1, "max_position_embeddings": 128, "head_dim": 8, "sliding_window": 6,
             "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8,
             "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}  # fmt: skip
    return _t("Gemma3TextConfig")(vocab_size=size + 7, **{**SMALL, **given, **more})  # a padded vocabulary


def _qwen(size: int, **more: Any) -> Any:
    given = {"num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": 1, "bos_token_id": 2}
    return _t("Qwen2Config")(vocab_size=size, **{**SMALL, **given, "pad_token_id": 0, **more})


def _mistral(size: int, **more: Any) -> Any:
    given = {"num_key_value_heads": 2, "max_position_embeddings": 128, "sliding_window": 5, "eos_token_id": 1}
    return _t("MistralConfig")(vocab_size=size, **{**SMALL, **given, "bos_token_id": 2, "pad_token_id": 0, **more})


KINDS: dict[str, tuple[str, Any, Any]] = {
    "bert": ("bert", _bert, lambda: _t("BertModel")),
    "masked": ("bert", _bert, lambda: _t("BertForMaskedLM")),
    "classifier": ("bert", _labelled, lambda: _t("BertForSequenceClassification")),
    "decider": ("gpt2", _decider, lambda: _t("GPT2ForSequenceClassification")),
    "roberta": ("bert", _roberta, lambda: _t("RobertaModel")),
    "gpt2": ("gpt2", _gpt2, lambda: _t("GPT2LMHeadModel")),
    "llama": ("gemma", _llama, lambda: _t("LlamaForCausalLM")),
    "gemma": ("gemma", _gemma, lambda: _t("Gemma3ForCausalLM")),
    "qwen": ("gemma", _qwen, lambda: _t("Qwen2ForCausalLM")),
    "mistral": ("gemma", _mistral, lambda: _t("MistralForCausalLM")),
}
