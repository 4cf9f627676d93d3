// Call every operation at the given URL with the client that openapi-generator generates.
using System;
using Newtonsoft.Json;
using Org.OpenAPITools.Api;
using Org.OpenAPITools.Client;
using Org.OpenAPITools.Model;

static class Calls
{
    static void Main(string[] arguments)
    {
        var key = Environment.GetEnvironmentVariable("TASKS_API_KEY");
        var tasks = new TasksApi(new Configuration { BasePath = arguments[0], AccessToken = key });

        var created = tasks.CreateTaskWithHttpInfo(new TaskInput("Résumé 任务 задача 🙂"));
        Console.WriteLine($"Created: {created.Data.Title}");
        var id = created.Data.Id;
        var tag = created.Headers["ETag"][0];

        Console.WriteLine($"Unchanged: {(int)tasks.GetTaskWithHttpInfo(id, tag).StatusCode}");

        var input = new TaskInput("Done", completed: true);
        var replaced = tasks.ReplaceTaskWithHttpInfo(id, input, tag);
        Console.WriteLine($"Replaced: {replaced.Data.Title} {(replaced.Data.Completed ? "true" : "false")}");

        Refused(() => tasks.ReplaceTask(id, input, tag));
        Console.WriteLine($"Listed: {tasks.ListTasks(limit: 1, completed: true)[0].Title}");
        Refused(() => tasks.CreateTask(new TaskInput("")));

        Console.WriteLine(JsonConvert.SerializeObject(tasks.DeleteTask(id, replaced.Headers["ETag"][0]).Message).Trim('"'));
    }

    static void Refused(Action call)
    {
        try
        {
            call();
            throw new Exception("not refused");
        }
        catch (ApiException refusal)
        {
            var problem = JsonConvert.DeserializeObject<Problem>((string)refusal.ErrorContent);
            Console.WriteLine($"Refused: {refusal.ErrorCode} {problem.Detail}");
            problem.Errors?.ForEach(violation => Console.WriteLine($"{violation.Pointer} {violation.Detail}"));
        }
    }
}
