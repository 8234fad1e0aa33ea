// The AI SDK. The settings are the provider's part of `providerOptions`.

import { City, Reading, SYSTEM, base, require, serve } from "./scenario.mjs"

const { generateObject, generateText, stepCountIs, streamObject, streamText, tool } = require("ai")
const { createOpenAI } = require("@ai-sdk/openai")
const { createAnthropic } = require("@ai-sdk/anthropic")

function opened(scenario) {
  const given = { baseURL: base({ ...scenario, protocol: "" }), apiKey: scenario.key }
  if (scenario.protocol === "messages") return createAnthropic(given)(scenario.model)
  const openai = createOpenAI(given)
  return scenario.protocol === "responses" ? openai(scenario.model) : openai.chat(scenario.model)
}

function question(text, { image, pdf }, first) {
  const content = [{ type: "text", text }]
  if (first && image) content.push({ type: "file", data: image, mediaType: "image/png" })
  if (first && pdf) content.push({ type: "file", data: pdf, mediaType: "application/pdf", filename: "invoice.pdf" })
  return { role: "user", content }
}

async function streamed(options, seen) {
  let failure
  const result = streamText({ ...options, onError: ({ error }) => (failure = error) })
  for await (const delta of result.textStream) seen.pieces.push(delta)
  if (failure) throw failure
  return { text: await result.text, steps: await result.steps, messages: (await result.response).messages }
}

async function whole(options) {
  const { text, steps, response } = await generateText(options)
  return { text, steps, messages: response.messages }
}

async function reading(options, scenario) {
  if (!scenario.streamed) return (await generateObject({ ...options, schema: Reading })).object
  let failure
  const result = streamObject({ ...options, schema: Reading, onError: ({ error }) => (failure = error) })
  for await (const _ of result.partialObjectStream);
  if (failure) throw failure
  return await result.object
}

await serve(async (scenario, seen) => {
  const provider = scenario.protocol === "messages" ? "anthropic" : "openai"
  const options = {
    model: opened(scenario),
    maxRetries: 0,
    providerOptions: { [provider]: scenario.settings },
    messages: [],
  }
  options.system = SYSTEM
  if (scenario.tools) {
    const weather = tool({ description: "The weather in a city.", inputSchema: City, execute: seen.weather })
    Object.assign(options, { tools: { weather }, stopWhen: stepCountIs(4) })
  }
  for (const text of scenario.questions) {
    options.messages.push(question(text, scenario, options.messages.length === 0))
    if (scenario.schema) {
      seen.reading = await reading(options, scenario)
      return
    }
    const said = await (scenario.streamed ? streamed(options, seen) : whole(options))
    options.messages.push(...said.messages)
    seen.reasoning.push(...said.steps.map((step) => step.reasoningText ?? ""))
    seen.answers.push(said.text)
  }
})
