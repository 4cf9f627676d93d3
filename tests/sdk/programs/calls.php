<?php
// Call every operation at the given URL with the client that openapi-generator generates.

use OpenAPI\Client\Api\TasksApi;
use OpenAPI\Client\ApiException;
use OpenAPI\Client\Configuration;
use OpenAPI\Client\Model\TaskInput;

require 'GuzzleHttp/autoload.php';
spl_autoload_register(fn ($name) => require strtr($name, ['OpenAPI\\Client\\' => 'lib/', '\\' => '/']) . '.php');

$configuration = Configuration::getDefaultConfiguration();
$configuration->setHost($argv[1])->setAccessToken(getenv('TASKS_API_KEY'));
$tasks = new TasksApi();
// The default is 0 and 1, which is not the notation of OpenAPI.
$configuration->setBooleanFormatForQueryString(Configuration::BOOLEAN_FORMAT_STRING);

function refused(callable $call): void
{
    try {
        $call();
        throw new AssertionError('not refused');
    } catch (ApiException $refusal) {
        $problem = $refusal->getResponseObject();
        echo "Refused: {$refusal->getCode()} {$problem->getDetail()}\n";
        foreach ($problem->getErrors() ?? [] as $violation) {
            echo "{$violation->getPointer()} {$violation->getDetail()}\n";
        }
    }
}

[$created, , $headers] = $tasks->createTaskWithHttpInfo((new TaskInput())->setTitle('Résumé 任务 задача 🙂'));
echo "Created: {$created->getTitle()}\n";
[$id, $tag] = [$created->getId(), $headers['ETag'][0]];

try {
    $tasks->getTask($id, $tag);
} catch (ApiException $unchanged) {
    echo "Unchanged: {$unchanged->getCode()}\n";
}

$input = (new TaskInput())->setTitle('Done')->setCompleted(true);
[$replaced, , $headers] = $tasks->replaceTaskWithHttpInfo($id, $input, $tag);
echo "Replaced: {$replaced->getTitle()} ", json_encode($replaced->getCompleted()), "\n";

refused(fn () => $tasks->replaceTask($id, $input, $tag));
echo "Listed: {$tasks->listTasks(limit: 1, completed: true)[0]->getTitle()}\n";
// Unlike the setters, the constructor does not validate.
refused(fn () => $tasks->createTask(new TaskInput(['title' => ''])));

echo $tasks->deleteTask($id, $headers['ETag'][0])->getMessage(), "\n";
