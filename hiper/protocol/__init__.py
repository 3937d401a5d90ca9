"""The plan-execute protocol: grammar, prompts, and where a reply's tokens stand."""

from hiper.protocol.grammar import Block, Decision, Fault, Reply, Span, Switch, decide, parse, planned, render
from hiper.protocol.prompts import Prompter, describe
from hiper.protocol.spans import ReplySpans, locate, reply_text, token_ends
from hiper.rl.blocks import Block as BlockId

__all__ = [
    "Block",
    "BlockId",
    "Decision",
    "Fault",
    "Prompter",
    "Reply",
    "ReplySpans",
    "Span",
    "Switch",
    "decide",
    "describe",
    "locate",
    "parse",
    "planned",
    "render",
    "reply_text",
    "token_ends",
]
