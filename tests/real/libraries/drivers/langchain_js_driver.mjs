// LangChain for JavaScript. The settings are more fields of `ChatOpenAI`.

import { City, Reading, SYSTEM, base, imageUrl, require, serve } from "./scenario.mjs"

const { HumanMessage, SystemMessage } = require("@langchain/core/messages")
const { concat } = require("@langchain/core/utils/stream")
const { tool } = require("@langchain/core/tools")
const { ChatOpenAI } = require("@langchain/openai")

function opened(scenario) {
  return new ChatOpenAI({
    model: scenario.model,
    apiKey: scenario.key,
    maxRetries: 0,
    configuration: { baseURL: base(scenario) },
    useResponsesApi: scenario.protocol === "responses",
    ...scenario.settings,
  })
}

function question(text, scenario, first) {
  const content = [{ type: "text", text }]
  if (first && scenario.image) content.push({ type: "image_url", image_url: { url: imageUrl(scenario) } })
  if (first && scenario.pdf) {
    const metadata = { filename: "invoice.pdf" }
    content.push({ type: "file", source_type: "base64", data: scenario.pdf, mime_type: "application/pdf", metadata })
  }
  return new HumanMessage({ content })
}

async function answer(model, messages, scenario, seen) {
  if (!scenario.streamed) return await model.invoke(messages)
  let said
  for await (const part of await model.stream(messages)) {
    seen.pieces.push(part.text)
    said = said === undefined ? part : concat(said, part)
  }
  return said
}

await serve(async (scenario, seen) => {
  const weather = tool(seen.weather, { name: "weather", description: "The weather in a city.", schema: City })
  let model = opened(scenario)
  const messages = [new SystemMessage(SYSTEM)]
  if (scenario.schema) {
    messages.push(new HumanMessage(scenario.questions[0]))
    const typed = model.withStructuredOutput(Reading, { name: "Reading", method: "jsonSchema" })
    if (!scenario.streamed) seen.reading = await typed.invoke(messages)
    else for await (const part of await typed.stream(messages)) seen.reading = part
    return
  }
  if (scenario.tools) model = model.bindTools([weather])
  for (const text of scenario.questions) {
    messages.push(question(text, scenario, messages.length === 1))
    let said
    do {
      said = await answer(model, messages, scenario, seen)
      messages.push(said)
      seen.reasoning.push(...said.contentBlocks.filter(({ type }) => type === "reasoning").map((each) => each.reasoning))
      for (const call of said.tool_calls ?? []) messages.push(await weather.invoke(call))
    } while (said.tool_calls?.length)
    seen.answers.push(said.text)
  }
})
