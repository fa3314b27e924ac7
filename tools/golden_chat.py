"""Writes tests/golden/chat.json: conversations as transformers renders and tokenizes them, and the tokens that TRL learns.

Run as `tools/golden.py chat`. Qwen2.5's template is the one TRL trains Qwen2.5 with (its own Qwen2.5 template and marks around what
the assistant says); the base models' differs in its system message alone. The tokenizer is models/tiny's. Held against the
same conversations on the way: the templates that checkpoints carry, tests/golden/chat_template.NAME.jinja.
"""
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
INSTRUCT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
BASE = "You are a helpful assistant."

WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "Weather of a city — now",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 3}},
                   "required": ["city"]}}}
ADD = {"name": "add", "parameters": {"a": 1.5, "b": None, "c": [True, 1e-7]}}


def user(text):
    return {"role": "user", "content": text}


def said(text, *calls):
    return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {})}


def call(name, arguments, wrapped=True):
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "function": function} if wrapped else function


def tool(text):
    return {"role": "tool", "content": text}


ROWS = [
    ("one turn", [user("Hi"), said("Hello!")], None),
    ("two turns and a system message", [{"role": "system", "content": "Be short."}, user("Hi"), said("Hello!"),
                                        user("2+2?"), said("<think>\n2+2\n</think>\n4")], None),
    ("a call at the end", [user("Weather in Bern?"), said(None, call("weather", {"city": "Bern"}))], [WEATHER]),
    ("a call with words before it", [user("Weather in Bern?"), said("Let me see.", call("weather", {"city": "Zürich"}))],
     [WEATHER]),
    ("two calls, not wrapped", [user("Both?"), said("", call("weather", {"city": "Bern", "days": 2}, False),
                                                    call("add", {"a": [1, 2.5], "b": {"c": None}}, False))], [WEATHER, ADD]),
    ("a call, its answer, words", [user("Weather?"), said("", call("weather", {"city": "Bern"})), tool('{"sun": true}'),
                                   said("It is sunny.")], [WEATHER]),
    ("two answers in one turn, then another call", [
        {"role": "system", "content": "Use tools."}, user("Add."), said("", call("add", {"a": 1}), call("add", {"a": 2})),
        tool("1"), tool("2"), said("Once more.", call("add", '{"a": 3}'))], [ADD]),
    ("calls without tools", [user("Hi"), said("", call("add", {})), tool("0"), said("0")], None),
    ("no tools, no calls", [user("Hi"), {**said("Yes."), "tool_calls": []}], []),
    ("a question after the last answer", [user("Hi"), said("Hello!"), user("And?")], None),
    ("white space around answers", [user(" Hi "), said("  Hello!\n\n"), user("?"), said("\n\nyes")], None),
    ("an end within an answer", [user("Hi"), said("a<|im_end|>b")], None),
]


# Of these templates also whole renderings, with and without the start of an answer. What the last column names is TRL's
# copy of what the models come with; of two the marks of what is learned, too.
FAMILIES = [("qwen3", "qwen3", "qwen3_training", {}), ("qwen3-nothink", "qwen3", None, {"enable_thinking": False}),
            ("llama3", "llama3", "llama3_training", {}), ("llama3.1", "llama3_1", None, {})]
BEGIN = "<|begin_of_text|>"
THOUGHTS = [
    ("thoughts of earlier answers", [user("Hi"), said("<think>\nold\n</think>\n\nHello!"), user("2+2?"),
                                     said("<think>\n\n2+2\n\n</think>\n\n\n4")], None),
    ("thoughts beside an answer", [user("Hi"), {**said("Hello!"), "reasoning_content": "\nfirst\n\nthen\n"}], None),
    ("thoughts around calls", [user("Add."), said("<think>\nneeds it\n</think>\n\n", call("add", {"a": 1})), tool("1"),
                               {**said("One.", call("add", {"a": 2})), "reasoning_content": "again"}, tool("2"),
                               said("Done.")], [ADD]),
    ("an answer of a tool as a user's", [user("Add."), said("<think>x</think>y"),
                                         user("<tool_response>\n1\n</tool_response>"), said("<think>\nz\n</think>\n\n1")],
     None),
    ("marks left open, twice, turned", [user("a"), said("<think>open"), user("b"), said("a</think>b</think>c"), user("c"),
                                        said("<think>1<think>2</think>3")], None),
    ("a system message between", [{"role": "system", "content": " Be\n"}, user(" a\u00a0"), said("b "),
                                  {"role": "system", "content": "Now."}, user("c")], None),
    ("only a system message", [{"role": "system", "content": "S"}], None),
    ("an answer alone", [said("Hi.")], None),
]


def has_tools(messages, tools):
    return tools or any(m["role"] == "tool" or m.get("tool_calls") for m in messages)


def without_empty_calls(messages):
    """Llama 3.1's template takes an empty list for a call."""
    return [{k: v for k, v in m.items() if k != "tool_calls" or v} for m in messages]


def families(tokenizer, out):
    import trl

    folder = os.path.join(os.path.dirname(trl.__file__), "chat_templates")
    read = lambda path: open(path, encoding="utf-8").read()
    renders, rows = [], []
    for template, real, training, more in FAMILIES:
        carried = read(os.path.join(out, f"chat_template.{template}.jinja"))
        for name, messages, tools in ROWS + THOUGHTS:
            if template.startswith("llama"):
                if has_tools(messages, tools):
                    continue
                messages, tools = without_empty_calls(messages), None
            row = {"messages": messages, **({} if tools is None else {"tools": tools})}
            render = lambda jinja, generate, **kw: tokenizer.apply_chat_template(
                messages, tools=tools, tokenize=False, chat_template=jinja, add_generation_prompt=generate,
                bos_token=BEGIN, **kw)
            for generate in (False, True):
                text = render(read(os.path.join(folder, real + ".jinja")), generate, **more)
                own = render(carried, generate)
                assert own == text, (template, name, own, text)
                if not generate or template != "qwen3":
                    renders.append({"template": template, "row": row, "generate": generate, "text": text})
            if training:
                learned = tokenizer.apply_chat_template(
                    messages, tools=tools, chat_template=read(os.path.join(folder, training + ".jinja")), return_dict=True,
                    return_assistant_tokens_mask=True, bos_token=BEGIN)
                rows.append({"name": name, "template": template, "row": row, "text": tokenizer.decode(learned["input_ids"]),
                             "ids": learned["input_ids"], "learned": "".join(map(str, learned["assistant_masks"]))})
    return renders, rows


def write(path, versions):
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import qwen2_5_chat_template, qwen2_5_training_chat_template

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=os.path.join(HERE, "../models/tiny/tokenizer.json"))
    carried = {}
    for name in ("qwen2.5", "qwen2.5-base"):
        with open(os.path.join(os.path.dirname(path), f"chat_template.{name}.jinja"), encoding="utf-8") as f:
            carried[name] = f.read()
    rows = []
    for i, (name, messages, tools) in enumerate(ROWS):
        for template, opening in (("qwen2.5", INSTRUCT), ("qwen2.5-base", BASE)):
            for generate in (False, True):
                text = [tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, chat_template=jinja,
                                                      add_generation_prompt=generate)
                        for jinja in (qwen2_5_chat_template.replace(INSTRUCT, opening), carried[template])]
                assert text[0] == text[1], (name, *text)
            out = tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=qwen2_5_training_chat_template.replace(INSTRUCT, opening),
                return_dict=True, return_assistant_tokens_mask=True)
            if template != "qwen2.5" and i % 5:
                continue
            text = tokenizer.decode(out["input_ids"])
            row = {"messages": messages, **({} if tools is None else {"tools": tools})}
            rows.append({"name": name, "template": template, "row": row, "text": text, "ids": out["input_ids"],
                         "learned": "".join(map(str, out["assistant_masks"]))})
    renders, more = families(tokenizer, os.path.dirname(path))
    table = lambda rows: ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"versions": ' + json.dumps(versions) + ', "rows": [\n')
        f.write(table(rows) + '\n], "families": [\n' + table(more) + '\n], "renders": [\n' + table(renders) + "\n]}\n")
