// The queries on SQLite, with libsql.
const Database = require('libsql')

const columns = 'id, title, description, completed, created_at AS createdAt'

const database = new Database(process.env.BENCHMARK_DATABASE)
database.pragma('journal_mode = WAL')
database.pragma('synchronous = FULL')

const selectPage = database.prepare(`SELECT ${columns} FROM task WHERE id > ? ORDER BY id LIMIT ?`)
const selectOne = database.prepare(`SELECT ${columns} FROM task WHERE id = ?`)
const insert = database.prepare(
  `INSERT INTO task (title, description, completed, created_at) VALUES (?, ?, ?, ?) RETURNING ${columns}`
)
const update = database.prepare(
  `UPDATE task SET title = ?, description = ?, completed = ? WHERE id = ? RETURNING ${columns}`
)

module.exports = {
  list: async (after, limit) => selectPage.all(after, limit),
  get: async (id) => selectOne.get(id),
  create: async (task) =>
    insert.get(task.title, task.description, Number(task.completed), new Date().toISOString()),
  replace: async (id, task) => update.get(task.title, task.description, Number(task.completed), id)
}
