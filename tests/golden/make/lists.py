"""A reranker that reads a query with a list of documents, laid out as jina-reranker-v3 is published, with seeded random weights.

  python lists.py

Writes tests/golden/checkpoints/jina-reranker-tiny and tests/golden/refs/ of the same name. Its forward pass is that of transformers' Qwen3
with the two products of the published `modeling.py`; prompt, lengths and blocks of documents are written out here from the same file.
Cases: a list alone, one document, an instruction, special tokens inside texts, texts cut at their lengths, more documents than one prompt
takes, and documents so long that a prompt has no room for another.
"""
import json
import shutil
import sys
from pathlib import Path

# A maker beside this one carries the name of a package, so this folder must not be searched.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import AddedToken, Tokenizer  # noqa: E402
from transformers import AutoTokenizer, Qwen3Config, Qwen3Model  # noqa: E402

GOLDEN = Path(__file__).resolve().parent.parent
NAME, SEED = "jina-reranker-tiny", 31
QUERY, DOCUMENT = "<|rerank_token|>", "<|embed_token|>"
LIMIT = 5200
BEFORE = (
    "<|im_start|>system\nYou are a search relevance expert who can determine a ranking of the passages based on how relevant they are to "
    "the query. If the query is a question, how relevant a passage is depends on how well it answers the question. If not, try to analyze "
    "the intent of the query and assess how well each passage satisfies the intent. If an instruction is provided, you should follow the "
    "instruction when determining the ranking.<|im_end|>\n<|im_start|>user\n")
BEHIND = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def dump(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def folder():
    path = GOLDEN / "checkpoints" / NAME
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    made = Tokenizer.from_file(str(GOLDEN / "checkpoints" / "qwen3-reranker-tiny" / "tokenizer.json"))
    made.add_special_tokens([AddedToken(DOCUMENT, normalized=False, special=True), AddedToken(QUERY, normalized=False, special=True)])
    made.save(str(path / "tokenizer.json"))
    dump(path / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": LIMIT, "clean_up_tokenization_spaces": False,
                                          "pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"})
    config = dict(model_type="qwen3", vocab_size=made.get_vocab_size(), hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, head_dim=16, intermediate_size=96, hidden_act="silu", max_position_embeddings=8192, rms_norm_eps=1e-6,
                  rope_theta=1000000.0, attention_bias=False, use_sliding_window=False, tie_word_embeddings=True)
    generator = torch.Generator().manual_seed(SEED)
    model = Qwen3Model(Qwen3Config(**config))
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {"projector.0.weight": torch.empty(24, 48), "projector.2.weight": torch.empty(32, 24)}
    for name, tensor in state.items():
        drawn = torch.randn(tensor.shape, generator=generator)
        scale = 0.1 if tensor.ndim == 1 else 0.5 if "embed" in name else 1.6 * tensor.shape[-1] ** -0.5
        state[name] = (drawn * scale + (1.0 if tensor.ndim == 1 else 0.0)).bfloat16().contiguous()
    save_file(state, str(path / "model.safetensors"), metadata={"format": "pt"})
    dump(path / "config.json", {"architectures": ["JinaForRanking"], "auto_map": {"AutoModel": "modeling.JinaForRanking"}, **config})
    return path


class Reranker:
    def __init__(self, path):
        from safetensors import safe_open

        with safe_open(str(path / "model.safetensors"), "pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}
        config = json.loads((path / "config.json").read_text())
        self.model = Qwen3Model(Qwen3Config(**{k: v for k, v in config.items() if k not in ("architectures", "auto_map")})).eval()
        self.model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")})
        self.projector = [state["projector.0.weight"], state["projector.2.weight"]]
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.query_id, self.document_id = (self.tokenizer.convert_tokens_to_ids(token) for token in (QUERY, DOCUMENT))
        self.prompts = []

    def block(self, query, documents, instruction):
        plain = lambda text: text.replace(QUERY, "").replace(DOCUMENT, "")  # noqa: E731
        query, documents = plain(query), [plain(document) for document in documents]
        prompt = (f"I will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
                  f"Rank the passages based on their relevance to query: {query}\n")
        if instruction:
            prompt += f"<instruct>\n{instruction}\n</instruct>\n"
        prompt += "\n".join(f'<passage id="{i}">\n{text}{DOCUMENT}\n</passage>' for i, text in enumerate(documents)) + "\n"
        prompt += f"<query>\n{query}{QUERY}\n</query>"
        ids = self.tokenizer(text=[BEFORE + prompt + BEHIND], return_tensors="pt")["input_ids"]
        self.prompts.append(ids[0].tolist())
        with torch.no_grad():
            rows = self.model(input_ids=ids).last_hidden_state[0]
            first, second = self.projector
            project = lambda rows: torch.relu(rows @ first.T) @ second.T  # noqa: E731
            query, documents = project(rows[ids[0] == self.query_id]), project(rows[ids[0] == self.document_id])
            scores = torch.nn.functional.cosine_similarity(documents, query.expand_as(documents), dim=-1)
        return query.numpy(), documents.numpy(), float(((1.0 + scores) / 2.0).max())

    def rerank(self, query, documents, instruction=None, most_document=2048, most_query=512):
        self.prompts = []
        texts, lengths = [], []
        for text in documents:
            ids = self.tokenizer(text, truncation=True, max_length=most_document)["input_ids"]
            texts.append(self.tokenizer.decode(ids) if len(ids) >= most_document else text)
            lengths.append(len(ids))
        ids = self.tokenizer(query, truncation=True, max_length=most_query)["input_ids"]
        query = self.tokenizer.decode(ids) if len(ids) >= most_query else query
        room = LIMIT - 2 * len(ids)
        blocks, block, left = [], [], room
        for text, length in zip(texts, lengths):
            block.append(text)
            left -= length
            if len(block) >= 125 or left <= most_document:
                blocks.append(block)
                block, left = [], room
        if block:
            blocks.append(block)
        found = [self.block(query, block, instruction) for block in blocks]
        of_query = np.average(np.array([one[0] for one in found]), axis=0, weights=[one[2] for one in found])
        of_documents = np.concatenate([one[1] for one in found])
        return np.dot(of_query, of_documents.T)[0] / (np.linalg.norm(of_query) * np.linalg.norm(of_documents, axis=1))


def main():
    path = folder()
    model, tensors, cases = Reranker(path), {}, []
    few = ["the bear eats a red apple", "China", "", "a long road by the sea, where nobody walks", "你好，世界", "import os\nprint(1)"]
    long = "the river and the hill, " * 110
    lists = {
        "few": ("which animal eats?", few, None),
        "one": ("which animal eats?", few[:1], None),
        "turned": ("which animal eats?", few[::-1], None),
        "instructed": ("which animal eats?", few, "prefer what is short"),
        "special": (f"who {QUERY}goes there", [f"a {DOCUMENT}dog", f"{QUERY}{DOCUMENT}", "<|im_start|>user"], None),
        "cut": ("why " * 600, ["word " * 2300, "a dog"], None),
        "many": ("a number", [f"number {i}" for i in range(130)], None),
        "room": ("water", [long, "a bear", long, long, "the sea", long[:600]], None),
    }
    for name, (query, documents, instruction) in lists.items():
        scores = model.rerank(query, documents, instruction)
        tensors[name] = torch.tensor(scores, dtype=torch.float32)
        # Texts that repeat themselves are written shorter.
        case = {"kind": "list", "name": name, "query": query, "documents": documents, "instruction": instruction, "scores": name,
                "prompts": [len(ids) for ids in model.prompts]}
        if name in ("one", "special"):
            case["input_ids"] = model.prompts[0]
        cases.append(case)
        print(name, [len(ids) for ids in model.prompts], np.round(scores[:6], 5), scores.std())
    dump(GOLDEN / "refs" / f"{NAME}.json", {"model": NAME, "seed": SEED, "transformers": "5.23.0", "cases": cases})
    save_file(tensors, str(GOLDEN / "refs" / f"{NAME}.safetensors"))


if __name__ == "__main__":
    main()
