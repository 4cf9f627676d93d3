// Call every operation at the given URL with the client that openapi-generator generates.

import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.TasksApi;
import org.openapitools.client.model.Problem;
import org.openapitools.client.model.TaskInput;

class Calls {
    static final ApiClient client = new ApiClient();

    public static void main(String[] arguments) throws Exception {
        client.updateBaseUri(arguments[0]);
        var key = System.getenv("TASKS_API_KEY");
        client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + key));
        var tasks = new TasksApi(client);

        var created = tasks.createTaskWithHttpInfo(new TaskInput().title("Résumé 任务 задача 🙂"), null);
        System.out.println("Created: " + created.getData().getTitle());
        var id = created.getData().getId();
        var tag = created.getHeaders().get("ETag").get(0);

        try {
            tasks.getTask(id, tag);
        } catch (ApiException unchanged) {
            System.out.println("Unchanged: " + unchanged.getCode());
        }

        var input = new TaskInput().title("Done").completed(true);
        var replaced = tasks.replaceTaskWithHttpInfo(id, input, tag);
        System.out.println("Replaced: " + replaced.getData().getTitle() + " " + replaced.getData().getCompleted());

        refused(() -> tasks.replaceTask(id, input, tag));
        System.out.println("Listed: " + tasks.listTasks(1, null, true, null).get(0).getTitle());
        refused(() -> tasks.createTask(new TaskInput().title(""), null));

        var newTag = replaced.getHeaders().get("ETag").get(0);
        System.out.println(tasks.deleteTask(id, newTag).getMessage().getValue());
    }

    interface Call {
        void run() throws ApiException;
    }

    static void refused(Call call) throws Exception {
        try {
            call.run();
            throw new AssertionError("not refused");
        } catch (ApiException refusal) {
            var problem = client.getObjectMapper().readValue(refusal.getResponseBody(), Problem.class);
            System.out.println("Refused: " + refusal.getCode() + " " + problem.getDetail());
            for (var violation : problem.getErrors()) {
                System.out.println(violation.getPointer() + " " + violation.getDetail());
            }
        }
    }
}
