// The official openai client of npm against pal serve: clients.mjs URL MODULE
const [url, path] = process.argv.slice(2);
const {default: OpenAI} = await import(path);
const client = new OpenAI({baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0});
const messages = [{role: "user", content: "What is a compiler?"}];
const check = (what, ok) => {
  if (!ok) {
    console.error(`not so: ${what}`);
    process.exit(1);
  }
};

const models = await client.models.list();
check("a model", models.data.length === 1);
const whole = await client.chat.completions.create(
    {model: "palimpsest", messages, max_tokens: 16, seed: 3});
check("an answer", typeof whole.choices[0].message.content === "string");
let text = "", usage;
for await (const part of await client.chat.completions.create({
       model: "palimpsest", messages, max_tokens: 16, seed: 3, stream: true,
       stream_options: {include_usage: true}})) {
  text += part.choices[0]?.delta?.content ?? "";
  usage = part.usage ?? usage;
}
check("the same answer", text === whole.choices[0].message.content);
check("usage", usage.completion_tokens === whole.usage.completion_tokens);
const parameters = {type: "object", properties: {n: {type: "integer"}}, required: ["n"],
                    additionalProperties: false};
const call = await client.chat.completions.create({
  model: "palimpsest", messages, max_tokens: 200, tool_choice: "required",
  parallel_tool_calls: false, tools: [{type: "function", function: {name: "f", parameters}}]});
const made = call.choices[0].message.tool_calls[0].function;
check("a call", made.name === "f" && Number.isInteger(JSON.parse(made.arguments).n));
const old = await client.completions.create({model: "palimpsest", prompt: "The", max_tokens: 4});
check("a completion", typeof old.choices[0].text === "string");
const formed = await client.chat.completions.create({
  model: "palimpsest", messages, max_tokens: 200, response_format: {
    type: "json_schema", json_schema: {name: "n", schema: {enum: ["yes", "no"]}}}});
check("a form", ["yes", "no"].includes(JSON.parse(formed.choices[0].message.content)));
const first = await client.responses.create(
    {model: "palimpsest", input: "What is a compiler?", max_output_tokens: 8});
let said = "", last;
for await (const event of await client.responses.create({
       model: "palimpsest", input: "And then?", previous_response_id: first.id,
       max_output_tokens: 8, stream: true})) {
  said += event.type === "response.output_text.delta" ? event.delta : "";
  last = event;
}
check("a response", last.response.output[0].content[0].text === said);
check("what was stored", (await client.responses.retrieve(first.id)).output_text === first.output_text);
await client.responses.delete(first.id);
let missing;
await client.responses.retrieve(first.id).catch((e) => missing = e);
check("an error of what is not there", missing instanceof OpenAI.NotFoundError);
let refused;
await client.chat.completions.create({model: "palimpsest", messages: []}).catch((e) => refused = e);
check("a typed error", refused instanceof OpenAI.BadRequestError);
const gone = new AbortController();
const stream = await client.chat.completions.create(
    {model: "palimpsest", messages, max_tokens: 4000, stream: true}, {signal: gone.signal});
for await (const part of stream) {
  gone.abort();
  check("a part", part.object === "chat.completion.chunk");
}
console.log("all well");
