// What every driver in JavaScript shares: it reads scenarios and prints what the user of its library saw. The fields are
// those of scenario.py. A driver judges nothing: what its library throws is part of what the user sees.
//
//     node DRIVER FOLDER     FOLDER is where the library is installed

import { createRequire } from "node:module"
import { createInterface } from "node:readline"

export const require = createRequire(`${process.argv[2]}/`)
export const SYSTEM = "Answer after asking."
const { z } = require("zod")
export const Reading = z.object({ city: z.string(), celsius: z.int() })
export const City = z.object({ city: z.string() })

export const base = ({ url, protocol }) => (protocol === "messages" ? url : `${url}/v1`)
export const imageUrl = ({ image }) => `data:image/png;base64,${image}`

export async function serve(converse) {
  console.log = console.info = console.error // the reports have the standard output for themselves
  for await (const line of createInterface({ input: process.stdin })) {
    const seen = { answers: [], pieces: [], reasoning: [], called: [], reading: null, raised: "", unsupported: "" }
    seen.weather = ({ city }) => {
      seen.called.push(city)
      return `sunny in ${city}`
    }
    try {
      await converse(JSON.parse(line), seen)
    } catch (error) {
      seen.raised = `${error?.name}: ${error?.message}`
    }
    process.stdout.write(`${JSON.stringify(seen)}\n`)
  }
}
