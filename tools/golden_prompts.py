"""The prompts of the golden log-probabilities: (name, text) with {user}/{end} marks for chat, filled in per model."""

LONG = """The harbour lies open to the east, and in the winter months the wind comes straight off the water and into the
narrow streets behind the market. For that reason the older houses have their doors on the landward side, and a visitor
who arrives by boat sees nothing at first but blank walls, a few small windows under the eaves, and the smoke going up
behind them. It takes a while to find the way in. There is a flight of steps beside the fish store, worn down in the
middle, and at the top of it a passage that looks as if it belonged to someone's yard. It does not. If you follow it past
the barrels and the nets you come out quite suddenly into a square with four lime trees, a pump, and the only inn.

We reached the square at about six in the evening. Nobody was there except an old man who was mending a chair, and when
we asked him about rooms he shook his head without looking up. The inn had been shut since the autumn, he said; the
owner had gone to live with her sister in the capital, and the key hung in the church. We could ask the sexton. He
pointed with his hammer to a low door at the other end of the square, went on with his work, and added, as if it were of
no great importance, that the sexton was deaf and would not hear us knock, so that it was better to throw a little gravel
at the upper window and wait."""

CODE = """#include <stdio.h>

static int gcd(int a, int b)
{
    while (b != 0) {
        int r = a % b;
        a = b;
        b = r;
    }
    return a;
}

int main(void)
{
    printf("%d\\n", gcd(84, 36));
    return 0;
}
"""

PYTHON = """def read_config(path):
    config = {}
    with open(path) as f:
        for number, line in enumerate(f, 1):
            line = line.split("#", 1)[0].strip()
            if not line:
                continue
            key, sep, value = line.partition("=")
            if not sep:
                raise ValueError(f"{path}:{number}: no '=' in {line!r}")
            config[key.strip()] = value.strip()
    return config
"""

JSON = """{"id": 1042, "name": "pump-3", "state": "running", "pressure": [2.1, 2.4, 2.35], "alarm": null,
 "history": [{"at": "2021-03-04T05:06:07Z", "event": "start"}, {"at": "2021-03-04T09:30:00Z", "event": "check"}]}"""

PROMPTS = [
    ("english", "The capital of France is Paris, and the capital of Italy is Rome. The two cities are about"),
    ("c", CODE),
    ("python", PYTHON),
    ("chat", "{user}What is the boiling point of water at sea level?{end}{model}Water boils at 100 degrees Celsius, or 212 "
             "degrees Fahrenheit, at sea level.{end}{user}And on a high mountain?{end}{model}"),
    ("chat_system", "{system}You answer in one short sentence.{end}{user}Why is the sky blue?{end}{model}Because air scatters "
                    "blue light more than red light."),
    ("german", "Der Zug nach Lübeck fährt heute ausnahmsweise von Gleis sieben ab. Bitte beachten Sie die Änderung."),
    ("french", "Il était une fois, dans un petit village près de la forêt, une fille que tout le monde aimait."),
    ("russian", "Зимой рано темнеет, и в окнах зажигается свет."),
    ("chinese", "今天天气很好，我们一起去公园散步吧。"),
    ("arabic", "السماء زرقاء والبحر هادئ هذا الصباح."),
    ("numbers", "3.14159265 2.71828182 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233 1000000 0x7fff 12:30 1999-12-31"),
    ("emoji", "Happy birthday! 🎉🎂 See you on Friday 👩‍👩‍👧 🇫🇮 ☀️ …"),
    ("json", JSON),
    ("repeated", "one two three four " * 12),
    ("spaces", "a  b   c    d\n\n\n\te\t\tf \n g"),
    ("long", LONG),
]

STYLES = {
    "smollm2": {"system": "<|im_start|>system\n", "user": "<|im_start|>user\n", "model": "<|im_start|>assistant\n",
                "end": "<|im_end|>\n"},
    "gemma3": {"system": "<start_of_turn>user\n", "user": "<start_of_turn>user\n", "model": "<start_of_turn>model\n",
               "end": "<end_of_turn>\n"},
}


def prompts(style):
    """(name, text) for a model; only chat prompts hold marks."""
    return [(name, text.format(**STYLES[style]) if name.startswith("chat") else text) for name, text in PROMPTS]
