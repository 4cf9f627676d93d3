# Call every operation at the given URL with the client that openapi-generator generates.
require "openapi_client"
require "uri"

url = URI(ARGV[0])
configuration = OpenapiClient::Configuration.new
configuration.scheme = url.scheme
configuration.host = "#{url.host}:#{url.port}"
configuration.access_token = ENV["TASKS_API_KEY"]
tasks = OpenapiClient::TasksApi.new(OpenapiClient::ApiClient.new(configuration))

def refused
  yield
  raise "not refused"
rescue OpenapiClient::ApiError => refusal
  problem = OpenapiClient::Problem.build_from_hash(JSON.parse(refusal.response_body, symbolize_names: true))
  puts "Refused: #{refusal.code} #{problem.detail}"
  (problem.errors || []).each { |violation| puts "#{violation.pointer} #{violation.detail}" }
end

created, _, headers = tasks.create_task_with_http_info(OpenapiClient::TaskInput.new(title: "Résumé 任务 задача 🙂"))
puts "Created: #{created.title}"
tag = headers["ETag"]

begin
  tasks.get_task(created.id, if_none_match: tag)
rescue OpenapiClient::ApiError => unchanged
  puts "Unchanged: #{unchanged.code}"
end

input = OpenapiClient::TaskInput.new(title: "Done", completed: true)
replaced, _, headers = tasks.replace_task_with_http_info(created.id, input, if_match: tag)
puts "Replaced: #{replaced.title} #{replaced.completed}"

refused { tasks.replace_task(created.id, input, if_match: tag) }
puts "Listed: #{tasks.list_tasks(limit: 1, completed: true)[0].title}"
refused { tasks.create_task({title: ""}) }

puts tasks.delete_task(created.id, if_match: headers["ETag"]).message
