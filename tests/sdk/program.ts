// Call every operation of the Tasks API at the given URL.
import assert from "node:assert/strict";

import { createTasksClient, type Problem, type Task } from "tasks-api-client";

const [, , baseUrl = "http://127.0.0.1:8000"] = process.argv;
const client = createTasksClient({ baseUrl, key: process.env.TASKS_API_KEY });

for (const title of ["Write the tutorial", "Water the plants", "Rest"]) {
  const header = { "Idempotency-Key": crypto.randomUUID() };
  const { data, error } = await client.POST("/api/tasks", { body: { title }, params: { header } });
  if (error) throw new Error(error.detail);
  console.log("Created:", data.title);
}

const tasks: Task[] = [];
for (let more = true; more; ) {
  const query = { limit: 2, after: tasks.at(-1)?.id ?? 0 };
  const { data, response } = await client.GET("/api/tasks", { params: { query } });
  assert(data);
  tasks.push(...data);
  console.log("Listed:", data.map((task) => task.title).join(", "));
  more = response.headers.has("Link");
}

assert(tasks[0]);
const path = { id: tasks[0].id };
const got = await client.GET("/api/tasks/{id}", { params: { path } });
const tag = got.response.headers.get("ETag");
assert(tag);
const params = { path, header: { "If-Match": tag } };
const { data } = await client.PUT("/api/tasks/{id}", { params, body: { title: "Publish it", completed: true } });
assert(data);
console.log("Replaced:", data.title, data.completed ? "(completed)" : "");

const { error: late } = await client.PUT("/api/tasks/{id}", { params, body: { title: "Too late" } });
assert(late);
console.log("Refused:", late.status, late.detail);

const description = "a".repeat(4001);
const { error: invalid } = await client.POST("/api/tasks", { body: { title: "", description } });
for (const violation of invalid?.errors ?? []) {
  console.log("Refused:", invalid?.status, violation.pointer, `${violation.rule}:`, violation.detail);
}

for (const { id } of tasks) {
  const { data } = await client.DELETE("/api/tasks/{id}", { params: { path: { id } } });
  assert(data);
  console.log(`${data.message}:`, id);
}

const missing: Problem | undefined = (await client.GET("/api/tasks/{id}", { params: { path } })).error;
assert(missing);
console.log("Refused:", missing.status, missing.detail);
