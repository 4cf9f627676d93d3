// Call every operation at the given URL with the client that openapi-generator generates.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	openapi "github.com/GIT_USER_ID/GIT_REPO_ID"
)

func main() {
	configuration := openapi.NewConfiguration()
	configuration.Servers = openapi.ServerConfigurations{{URL: os.Args[1]}}
	tasks := openapi.NewAPIClient(configuration).TasksAPI
	call := context.WithValue(context.Background(), openapi.ContextAccessToken, os.Getenv("TASKS_API_KEY"))

	created, response, err := tasks.CreateTask(call).TaskInput(*openapi.NewTaskInput("Résumé 任务 задача 🙂")).Execute()
	check(err)
	fmt.Println("Created:", created.Title)
	tag := response.Header.Get("ETag")

	_, response, _ = tasks.GetTask(call, created.Id).IfNoneMatch(tag).Execute()
	fmt.Println("Unchanged:", response.StatusCode)

	input := openapi.NewTaskInput("Done")
	input.SetCompleted(true)
	replaced, response, err := tasks.ReplaceTask(call, created.Id).TaskInput(*input).IfMatch(tag).Execute()
	check(err)
	fmt.Println("Replaced:", replaced.Title, replaced.Completed)

	_, late, err := tasks.ReplaceTask(call, created.Id).TaskInput(*input).IfMatch(tag).Execute()
	refused(late, err)

	list, _, err := tasks.ListTasks(call).Limit(1).Completed(true).Execute()
	check(err)
	fmt.Println("Listed:", list[0].Title)

	_, invalid, err := tasks.CreateTask(call).TaskInput(*openapi.NewTaskInput("")).Execute()
	refused(invalid, err)

	deleted, _, err := tasks.DeleteTask(call, created.Id).IfMatch(response.Header.Get("ETag")).Execute()
	check(err)
	fmt.Println(deleted.Message)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func refused(response *http.Response, err error) {
	var refusal *openapi.GenericOpenAPIError
	if !errors.As(err, &refusal) {
		panic(err)
	}
	problem := refusal.Model().(openapi.Problem)
	fmt.Println("Refused:", response.StatusCode, problem.Detail)
	for _, violation := range problem.Errors {
		fmt.Println(violation.GetPointer(), violation.Detail)
	}
}
