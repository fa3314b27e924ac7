#!/bin/sh
# tokenizers 0.22.2 and 0.23.3: an added token with normalized=True, beside a normalizer and a byte-level decoder.
#
# Behaviour: with the NFC normalizer, "e" + U+0301 (two characters) added with normalized=True is stored as it was given by 0.22.2,
# and decodes to the same two characters. 0.23.3 stores it composed, as U+00E9; the byte-level decoder takes that character for the
# name of byte E9, which is no UTF-8 by itself, so the token decodes to U+FFFD and its text is lost.
# One expects: what was encoded decodes to the same text, up to the normalizer; "caf" + U+00E9 to a text that ends in an e with an accent.
# Seen: the same ids from both versions; 0.22.2 decodes them to "cafe" + U+0301, 0.23.3 to "caf" + U+FFFD.
# What helps: normalized=False for added tokens that are not ASCII, or a token whose characters are outside of the byte alphabet.
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cat >"$room/ask.py" <<'PY'
from tokenizers import AddedToken, Tokenizer, __version__, decoders, models, normalizers, pre_tokenizers

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
t.normalizer = normalizers.NFC()
t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
t.decoder = decoders.ByteLevel()
t.add_tokens([AddedToken("e\u0301", normalized=True)])
ids = t.encode("caf\u00e9").ids
print(ids, ascii(t.id_to_token(ids[-1])), ascii(t.decode(ids)))
PY
for version in 0.22.2 0.23.3; do
    python3 -m venv "$room/$version"
    "$room/$version/bin/pip" install -q "tokenizers==$version" >/dev/null
    "$room/$version/bin/python" "$room/ask.py" >"$room/$version.out"
    echo "tokenizers $version: $(cat "$room/$version.out")"
done
if [ "$(cat "$room/0.22.2.out")" != "[66, 64, 69, 256] 'e\\u0301' 'cafe\\u0301'" ] ||
    [ "$(cat "$room/0.23.3.out")" != "[66, 64, 69, 256] '\\xe9' 'caf\\ufffd'" ]; then
    echo "changed: not what is described above"
    exit 1
fi
echo "as described: the same ids, two texts"
