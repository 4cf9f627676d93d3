// A peer: the API in Fastify with JSON schemas, as in its documentation (fastify.dev): node server.js DATABASE --port PORT.
const { parseArgs } = require('node:util')

const { values, positionals } = parseArgs({ options: { port: { type: 'string' } }, allowPositionals: true })
const [database] = positionals
const queries = require(`./${database}.js`)

// Refuse additional properties instead of removing them.
const fastify = require('fastify')({ ajv: { customOptions: { removeAdditional: false } } })

const title = { type: 'string', minLength: 1, maxLength: 255 }
const input = {
  type: 'object',
  required: ['title'],
  additionalProperties: false,
  properties: {
    title,
    description: { type: 'string', nullable: true, maxLength: 4000, default: null },
    completed: { type: 'boolean', default: false }
  }
}
const task = {
  type: 'object',
  properties: {
    id: { type: 'integer' },
    title: { type: 'string' },
    description: { type: 'string', nullable: true },
    completed: { type: 'boolean' },
    createdAt: { type: 'string' }
  }
}
const page = { type: 'array', items: task }
const params = { type: 'object', properties: { id: { type: 'integer' } } }
const querystring = {
  type: 'object',
  properties: {
    limit: { type: 'integer', minimum: 1, maximum: 1000, default: 100 },
    after: { type: 'integer', default: 0 }
  }
}

function orNotFound(found, reply) {
  return found ?? reply.code(404).send({ title: 'Not Found' })
}

fastify.get('/api/tasks', { schema: { querystring, response: { 200: page } } }, (request) =>
  queries.list(request.query.after, request.query.limit)
)

fastify.get('/api/tasks/:id', { schema: { params, response: { 200: task } } }, async (request, reply) =>
  orNotFound(await queries.get(request.params.id), reply)
)

fastify.post('/api/tasks', { schema: { body: input, response: { 201: task } } }, async (request, reply) => {
  reply.code(201)
  return queries.create(request.body)
})

fastify.put('/api/tasks/:id', { schema: { params, body: input, response: { 200: task } } }, async (request, reply) =>
  orNotFound(await queries.replace(request.params.id, request.body), reply)
)

fastify.listen({ port: Number(values.port) })
