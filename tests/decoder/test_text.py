"""Templates from strangers cannot reach Python; text comes out in whole characters."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edgevtc.bundle import embedded_path
from edgevtc.decoder.text import ChatTemplate, TextCodec, question_text
from edgevtc.errors import BundleError, ConfigError

ONEVISION = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + content['text'] }}{% endfor %}"
    "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def turn(role, text, video=False):
    return {"role": role, "content": [{"type": "video"}] * video + [{"type": "text", "text": text}]}


def test_a_published_template_renders_a_conversation():
    text = ChatTemplate(ONEVISION).render(
        [turn("user", "What?", True), turn("assistant", "A cat."), turn("user", "Where?")]
    )
    assert text == (
        "<|im_start|>user <video>\nWhat?<|im_end|><|im_start|>assistant \nA cat.<|im_end|>"
        "<|im_start|>user \nWhere?<|im_end|><|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__ }}",
        "{% set x = messages.append(1) %}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ raise_exception('only one turn') }}",
        "{{ messages[99].content }}",
    ],
)
def test_a_template_cannot_reach_out_and_failures_are_one_line(source):
    with pytest.raises(BundleError, match="chat template failed"):
        ChatTemplate(source).render([turn("user", "x")])


def test_a_broken_template_is_refused_when_read():
    with pytest.raises(BundleError, match="not valid Jinja"):
        ChatTemplate("{% for %}")


def test_streaming_waits_for_whole_characters(tmp_path):
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    codec = TextCodec(tmp_path / "tokenizer.json")
    ids = codec.encode("naïve 🎥!")
    assert len(ids) == len("naïve 🎥!".encode())
    pieces = list(codec.stream(iter(ids)))
    assert "".join(pieces) == "naïve 🎥!" and "🎥" in pieces
    assert codec.unknown_words("anything 🎥") == []


class TestEmbeddedVocabulary:
    @pytest.fixture
    def codec(self):
        return TextCodec(embedded_path() / "tokenizer.json")

    def test_case_and_punctuation_do_not_matter(self, codec):
        assert codec.encode("What COLOUR is the circle?") == codec.encode("what color is the circle")

    def test_unknown_words_are_named_once_as_written(self, codec):
        assert codec.unknown_words("What is the Elephant doing, elephant or Zebra?") == [
            "Elephant",
            "doing",
            "elephant",
            "Zebra",
        ]

    def test_a_missing_token_is_named(self, codec):
        with pytest.raises(BundleError, match="<movie>"):
            codec.token_id("<movie>")


def test_no_tokenizer_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match="is no tokenizer"):
        TextCodec(tmp_path / "tokenizer.json")


def test_an_empty_question_is_refused():
    assert question_text("  why? ") == "why?"
    with pytest.raises(ConfigError, match="empty"):
        question_text(" \n")
