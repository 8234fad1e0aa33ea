// Runs on Node: a conversation with the AI SDK, with a tool, whole and streamed.
//
//     node ai_sdk_driver.mjs FOLDER BASE_URL SETTINGS QUESTION… > report.json
//
// FOLDER is where the AI SDK is installed. SETTINGS is a JSON object of what is not left at its default: the name of the
// `model`, and options of the provider `openai`. The report gives the answers and the tool's calls of each way, and, where
// it failed, what its user reads.

import { createRequire } from "node:module"

const [folder, baseURL, settings, ...questions] = process.argv.slice(2)
const require = createRequire(`${folder}/`)
const { generateText, stepCountIs, streamText, tool } = require("ai")
const { createOpenAI } = require("@ai-sdk/openai")
const { z } = require("zod")

const { model = "any", openai = {} } = JSON.parse(settings)
console.info = console.error // where it warns; the report has the standard output for itself
const provider = createOpenAI({ baseURL, apiKey: "dummy" })

async function whole(options) {
  const { text, response } = await generateText(options)
  return { text, messages: response.messages }
}

async function streamed(options) {
  let failure
  const result = streamText({ ...options, onError: ({ error }) => (failure = error) })
  let text = ""
  for await (const delta of result.textStream) text += delta
  if (failure) throw failure
  return { text, messages: (await result.response).messages }
}

async function conversation(ask) {
  const report = { answers: [], called: [] }
  const weather = tool({
    description: "The weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      report.called.push(city)
      return `sunny in ${city}`
    },
  })
  const options = {
    model: provider(model),
    system: "Answer after asking.",
    tools: { weather },
    stopWhen: stepCountIs(4),
    providerOptions: { openai },
  }
  const messages = []
  try {
    for (const content of questions) {
      messages.push({ role: "user", content })
      const answer = await ask({ ...options, messages })
      messages.push(...answer.messages)
      report.answers.push(answer.text)
    }
  } catch (error) {
    report.raised = String(error.message)
  }
  return report
}

process.stdout.write(JSON.stringify({ whole: await conversation(whole), streamed: await conversation(streamed) }))
