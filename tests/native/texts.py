"""Texts that a tokenizer is compared on: many scripts, and the places where pre-tokenizers differ."""

from __future__ import annotations

import random

_SENTENCES = (
    "The capital of France is",
    "It's they're I've I'm we'll he'd don't IT'S THEY'RE I'VE I'M WE'LL HE'D DON'T",
    "def f(x):\n\treturn x ** 2  # squares\n\n\nprint(f(12345))\r\n",
    "¿Dónde está la biblioteca? — «Là-bas», répondit-il.",
    "Größenwahn, Straßenbahn, naïve façade, Ångström, œuvre, ﬁne",
    "Быстрая коричневая лиса перепрыгнула через ленивую собаку №7.",
    "Η γρήγορη καφέ αλεπού πήδηξε πάνω από το τεμπέλικο σκυλί.",
    "השועל החום המהיר קופץ מעל הכלב העצלן",
    "الثعلب البني السريع يقفز فوق الكلب الكسول ١٢٣٤٥",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है १२३",
    "দ্রুত বাদামী শেয়াল অলস কুকুরের উপর লাফ দেয় ৪৫৬",
    "வேகமான பழுப்பு நரி சோம்பேறி நாய் மீது குதிக்கிறது",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ ๑๒๓",
    "ທ່ານສະບາຍດີບໍ່ · မင်္ဂလာပါ · សួស្តី",
    "敏捷的棕色狐狸跳过了懒狗。二〇二六年十一月",
    "素早い茶色の狐はのろまな犬を飛び越える。カタカナ・ﾊﾝｶｸ",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다.",
    "სწრაფი ყავისფერი მელა · Արագ շագանակագույն աղվեսը",
    "ፈጣን ቡናማ ቀበሮ ሰነፍ ውሻ ላይ ዘለለ ፩፪፫",
    "Con cáo nâu nhanh nhẹn nhảy qua con chó lười biếng",
    "👩‍👩‍👧‍👦 family, 🇫🇷 flag, 👍🏽 thumb, ☃️ snow, 𝔘𝔫𝔦𝔠𝔬𝔡𝔢, 𝟘𝟙𝟚, Ⅷ ½ ²",
    "1 12 123 1234 12345 3.14159 1,000,000 0xFF 1e-9 2026-11-22T10:00:00Z",
    "a  b   c    d\te\t\tf \n g\n\n h \r\n i \u00a0j\u3000k\u2003l\u0085m\u200bn",
    "<|im_start|>user\nHello<|im_end|>\n<|endoftext|> <repo_name>x<reponame>y",
    "{\"key\": [1, 2.5, null, true], 'other': \"\\u00e9\"} <a href='https://example.org/?q=1&r=2#x'>",
    "   leading, trailing   ",
    "HelloWorld HTTPServer iPhone ÀÉÎstanbul İSTANBUL ÇaĞdaŞ ǅungla x2Y3 fooBARbaz's ABC'S МиР'т Ωmega",
    "https://a.b/c/\n\n// x /\r\n/* y */\n/usr/local/bin/\n1234567/89012",
    "'",
    "''s 's 'S'T 'ſ 'Re",
    "\x00\x01\x1f\x7f\x1c\x1d",
    "ZWJ\u200d BOM\ufeff RLM\u200f combining e\u0301 a\u030a",
    "ꙮ𐍈𐎀𒀀𓀀𠀀𮯰𑼂🫨\U0001df00 \U00011f50",
    "________----=====******......!!!!???",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
)

_RANGES = (
    (0x20, 0x7E), (0x20, 0x7E), (0x00, 0x20), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x52F), (0x530, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xB80, 0xBFF), (0xE00, 0xE7F),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F),
    (0x2190, 0x23FF), (0x2460, 0x24FF), (0x3000, 0x30FF), (0x4E00, 0x4FFF), (0xA640, 0xA69F),
    (0xAC00, 0xAD00), (0xFE00, 0xFFEF), (0x10000, 0x105FF), (0x11000, 0x11FFF), (0x1D400, 0x1D7FF),
    (0x1F300, 0x1FAFF), (0x2EBF0, 0x2EE5D), (0xE0000, 0xE01EF),
)  # fmt: skip
_JOINTS = (
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    " \n",
    "\r\n",
    "'s",
    "'T",
    "'ll",
    "'",
    "1",
    "22",
    "333",
    "4444",
    ".",
    "...",
    "",
)


def texts(count: int = 1000, seed: int = 20261122) -> list[str]:
    """`count` texts, the same at every call."""
    rng = random.Random(seed)
    out = list(_SENTENCES)
    words = [word for sentence in _SENTENCES for word in sentence.split(" ")]
    while len(out) < count:
        pieces = []
        for _ in range(rng.randint(1, 9)):
            if rng.random() < 0.5:
                pieces.append(rng.choice(words))
            else:
                low, high = rng.choice(_RANGES)
                pieces.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 5))))
            pieces.append(rng.choice(_JOINTS))
        out.append("".join(pieces))
    return out[:count]


# Special tokens of the vocabularies that the tests make, and of Gemma.
MARKS = (
    "<s>", "</s>", "<unk>", "<|user|>", "<|end|>", "<|assistant|>", "<|endoftext|>", "[INST]", "[/INST]",
    "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "\n\n", "\n\n\n", "    ", "\t\t",
    "</table>", "<unused7>", "<0x0A>", "<|im_start|>", "<|im_end|>",
)  # fmt: skip


def marked_texts(count: int = 300, seed: int = 5) -> list[str]:
    """`count` texts full of special tokens, whole and broken, the same at every call."""
    rng = random.Random(seed)
    words = [word for sentence in _SENTENCES[:20] for word in sentence.split(" ")]
    out = []
    for _ in range(count):
        pieces = []
        for _ in range(rng.randint(1, 7)):
            mark = rng.choice(MARKS)
            pieces.append(rng.choice(("", " ", "  ", "\n", "\n \t", "x", "▁")))
            pieces.append(mark[: rng.randint(1, len(mark))] if rng.random() < 0.15 else mark)
            pieces.append(rng.choice(("", " ", "  ", "\n", "\r\n ", "\v\f", "\u00a0", "▁")))
            pieces.append(rng.choice(words))
        out.append("".join(pieces))
    return out
