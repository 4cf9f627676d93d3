// Call every operation at the given URL with the client that openapi-generator generates.
import { Configuration, ProblemFromJSON, ResponseError, TasksApi } from "./index.js";

const tasks = new TasksApi(new Configuration({ basePath: process.argv[2], accessToken: process.env.TASKS_API_KEY }));

async function refused(call: Promise<unknown>) {
  const { response } = await call.then(() => Promise.reject("not refused"), (error: ResponseError) => error);
  const problem = ProblemFromJSON(await response.json());
  console.log("Refused:", response.status, problem.detail);
  for (const violation of problem.errors ?? []) {
    console.log(violation.pointer, violation.detail);
  }
}

const created = await tasks.createTaskRaw({ taskInput: { title: "Résumé 任务 задача 🙂" } });
const { id, title } = await created.value();
console.log("Created:", title);
const ifMatch = created.raw.headers.get("ETag") ?? "";

await tasks.getTask({ id, ifNoneMatch: ifMatch }).catch((unchanged: ResponseError) => {
  console.log("Unchanged:", unchanged.response.status);
});

const taskInput = { title: "Done", completed: true };
const replaced = await tasks.replaceTaskRaw({ id, ifMatch, taskInput });
const task = await replaced.value();
console.log("Replaced:", task.title, task.completed);

await refused(tasks.replaceTask({ id, ifMatch, taskInput }));
console.log("Listed:", (await tasks.listTasks({ limit: 1, completed: true }))[0]?.title);
await refused(tasks.createTask({ taskInput: { title: "" } }));

const deleted = await tasks.deleteTask({ id, ifMatch: replaced.raw.headers.get("ETag") ?? "" });
console.log(deleted.message);
