// The queries on PostgreSQL, with node-postgres and named prepared statements.
const { Pool, types } = require('pg')

const columns = 'id, title, description, completed, created_at AS "createdAt"'

// Parse a bigint as a number, since every id is below 2^53.
types.setTypeParser(types.builtins.INT8, Number)
const pool = new Pool({ connectionString: process.env.BENCHMARK_DATABASE, max: 10 })

const selectPage = `SELECT ${columns} FROM task WHERE id > $1 ORDER BY id LIMIT $2`
const selectOne = `SELECT ${columns} FROM task WHERE id = $1`
const insert =
  `INSERT INTO task (title, description, completed, created_at) VALUES ($1, $2, $3, $4) RETURNING ${columns}`
const update = `UPDATE task SET title = $1, description = $2, completed = $3 WHERE id = $4 RETURNING ${columns}`

async function query(name, text, values) {
  return (await pool.query({ name, text, values })).rows
}

module.exports = {
  list: (after, limit) => query('list', selectPage, [after, limit]),
  get: async (id) => (await query('get', selectOne, [id]))[0],
  create: async (task) =>
    (await query('create', insert, [task.title, task.description, task.completed, new Date().toISOString()]))[0],
  replace: async (id, task) =>
    (await query('replace', update, [task.title, task.description, task.completed, id]))[0]
}
