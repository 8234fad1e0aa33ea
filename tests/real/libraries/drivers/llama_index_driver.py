"""LlamaIndex. The settings are more arguments of `OpenAIResponses` or `OpenAI`."""

from typing import Any

from llama_index.core.base.llms.types import ChatMessage, DocumentBlock, ImageBlock, TextBlock, ThinkingBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses
from scenario import SYSTEM, Reading, Scenario, Seen, serve


def opened(scenario: Scenario) -> Any:
    kind = OpenAIResponses if scenario.protocol == "responses" else OpenAI
    given = {"model": scenario.model, "api_base": scenario.base, "api_key": scenario.key, "max_retries": 0}
    return kind(**given, **scenario.settings)


def question(text: str, scenario: Scenario, first: bool) -> ChatMessage:
    blocks: list[Any] = [TextBlock(text=text)]
    if first and scenario.image:
        blocks.append(ImageBlock(image=scenario.image_bytes, image_mimetype="image/png"))
    if first and scenario.pdf:
        blocks.append(DocumentBlock(data=scenario.pdf_bytes, document_mimetype="application/pdf", title="invoice.pdf"))
    return ChatMessage(role="user", blocks=blocks)


def answer(model: Any, messages: list[Any], tools: list[Any], scenario: Scenario, seen: Seen) -> Any:
    given = {"chat_history": messages, "allow_parallel_tool_calls": True}
    if not scenario.streamed:
        return model.chat_with_tools(tools, **given) if tools else model.chat(messages)
    said = None
    for said in model.stream_chat_with_tools(tools, **given) if tools else model.stream_chat(messages):
        seen.pieces.append(said.delta or "")
    return said


def converse(scenario: Scenario, seen: Seen) -> None:
    model = opened(scenario)
    tools = [FunctionTool.from_defaults(seen.weather)] if scenario.tools else []
    messages: list[Any] = [ChatMessage(role="system", content=SYSTEM)]
    if scenario.schema:
        typed = model.as_structured_llm(Reading)
        messages.append(question(scenario.questions[0], scenario, first=True))
        said = list(typed.stream_chat(messages))[-1] if scenario.streamed else typed.chat(messages)
        seen.reading = said.raw.model_dump()
        return
    for text in scenario.questions:
        messages.append(question(text, scenario, first=len(messages) == 1))
        while True:
            said = answer(model, messages, tools, scenario, seen)
            messages.append(said.message)
            blocks = said.message.blocks
            seen.reasoning += [block.content or "" for block in blocks if isinstance(block, ThinkingBlock)]
            calls = model.get_tool_calls_from_response(said, error_on_no_tool_call=False) if tools else []
            if not calls:
                break
            for call in calls:
                result = tools[0](**call.tool_kwargs)
                kept = {"tool_call_id": call.tool_id}
                messages.append(ChatMessage(role="tool", content=str(result), additional_kwargs=kept))
        seen.answers.append(said.message.content or "")


if __name__ == "__main__":
    serve(converse)
