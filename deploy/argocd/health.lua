-- How Argo CD reads a FirehosePipeline. It goes into the ConfigMap argocd-cm, under the key
-- resource.customizations.health.penstock.dev_FirehosePipeline: see README.md beside this file.
local health = { status = "Progressing", message = "No operator has looked at it yet" }
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "It is being deleted"
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "The operator has not looked at the last change yet"
  return health
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function is(kind, value)
  return conditions[kind] ~= nil and conditions[kind].status == value
end
local ready = conditions.Ready
if ready == nil then
  return health
end
health.message = ready.reason .. ": " .. ready.message
if is("Stalled", "True") then
  health.status = "Degraded"
elseif is("Reconciling", "True") and status.phase ~= "Degraded" then
  health.status = "Progressing"
elseif ready.reason == "Suspended" then
  health.status = "Suspended"
elseif is("Ready", "True") then
  health.status = "Healthy"
elseif is("Ready", "False") and status.phase ~= "Pending" then
  health.status = "Degraded"
end
return health
