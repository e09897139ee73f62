//! Where a route is registered: with who may call it and what it answers, so that no route goes undescribed.
//!
//! ```text
//! api.post("/things/{id}", Access::Admin, change).says("Changes a thing.").takes::<Change>().answers::<Thing>("the thing");
//! ```
//! The shapes are those of the types that are really written and read (`schemars::JsonSchema`). Errors need no mention but
//! where a status means something of its own: every route may answer `application/problem+json`.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, delete, get, post};
use penstock_core::settings::BasePath;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::problem::Shape;
use super::{auth, heavy, limits};
use crate::App;

/// Where the shapes stand in the description.
const SHAPES: &str = "/components/schemas";

/// Who may call a route.
#[derive(Clone, Copy)]
pub(super) enum Access {
    /// Everyone.
    Open,
    /// Whoever may read: everyone where no read token is set.
    Read,
    /// Whoever may administrate.
    Admin,
    /// The same; or whoever may read, where `messageBuffer.openAdmin` is set.
    AdminUnlessOpen,
}

/// The routes and their description.
pub(super) struct Api {
    routes: Vec<Registered>,
    /// By path, then by method.
    paths: Map<String, Value>,
    /// The shapes that are written.
    written: SchemaGenerator,
    /// The shapes that are read.
    read: SchemaGenerator,
}

struct Registered {
    path: &'static str,
    access: Access,
    method: MethodRouter<Arc<App>>,
    /// Answers without end: no time is set for it.
    live: bool,
    /// Its answer may be large.
    heavy: bool,
}

/// The description of a route that was just registered.
pub(super) struct Operation<'a> {
    told: &'a mut Value,
    written: &'a mut SchemaGenerator,
    read: &'a mut SchemaGenerator,
}

// === impl Api ===

impl Api {
    pub(super) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = SHAPES.into();
            settings.meta_schema = None;
        });
        Self {
            routes: Vec::new(),
            paths: Map::new(),
            written: settings.clone().for_serialize().into_generator(),
            read: settings.for_deserialize().into_generator(),
        }
    }

    /// Registers a GET, and with it HEAD.
    pub(super) fn get<H: Handler<T, Arc<App>>, T: 'static>(
        &mut self,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Operation<'_> {
        self.routes.push(Registered { path, access, method: get(handler), live: false, heavy: false });
        self.describe("get", path, access)
    }

    /// Registers a GET whose answer may be large.
    pub(super) fn heavy<H: Handler<T, Arc<App>>, T: 'static>(
        &mut self,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Operation<'_> {
        self.routes.push(Registered { path, access, method: get(handler), live: false, heavy: true });
        self.describe("get", path, access)
    }

    /// Registers a GET that answers without end.
    pub(super) fn live<H: Handler<T, Arc<App>>, T: 'static>(
        &mut self,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Operation<'_> {
        self.routes.push(Registered { path, access, method: get(handler), live: true, heavy: false });
        self.describe("get", path, access)
    }

    /// Registers a POST.
    pub(super) fn post<H: Handler<T, Arc<App>>, T: 'static>(
        &mut self,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Operation<'_> {
        self.routes.push(Registered { path, access, method: post(handler), live: false, heavy: false });
        self.describe("post", path, access)
    }

    /// Registers a DELETE.
    pub(super) fn delete<H: Handler<T, Arc<App>>, T: 'static>(
        &mut self,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Operation<'_> {
        self.routes.push(Registered { path, access, method: delete(handler), live: false, heavy: false });
        self.describe("delete", path, access)
    }

    /// Says of a route what its path and its access say.
    fn describe(&mut self, method: &str, path: &'static str, access: Access) -> Operation<'_> {
        let problem = content("application/problem+json", &self.written.subschema_for::<Shape>());
        let parameters: Vec<_> = named_in(path).map(|name| parameter(name, "path", true, "", "string")).collect();
        let security = match access {
            Access::Open => json!([]),
            // The empty one: open where no read token is set.
            Access::Read => json!([{}, {"bearer": []}, {"session": []}]),
            Access::Admin | Access::AdminUnlessOpen => json!([{"bearer": []}, {"session": []}]),
        };
        let told = json!({
            "parameters": parameters,
            "security": security,
            "responses": {"default": {"description": "an error", "content": problem}},
        });
        let methods = self.paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = told;
        Operation { told: &mut methods[method], written: &mut self.written, read: &mut self.read }
    }

    /// Lays out the routes, each behind what goes for it.
    pub(super) fn router(&mut self, app: &Arc<App>) -> Router<Arc<App>> {
        let open = app.settings.message_buffer.open_admin;
        self.routes.drain(..).fold(Router::new(), |router, Registered { path, access, live, heavy, method }| {
            let method = if heavy { method.layer(from_fn_with_state(Arc::clone(app), heavy::one)) } else { method };
            let method = if live { method } else { method.layer(from_fn(limits::in_time)) };
            let method = match access {
                Access::Open => method,
                Access::AdminUnlessOpen if open => method.layer(from_fn_with_state(Arc::clone(app), auth::guard)),
                Access::Read => method.layer(from_fn_with_state(Arc::clone(app), auth::guard)),
                Access::Admin | Access::AdminUnlessOpen => {
                    method.layer(from_fn_with_state(Arc::clone(app), auth::admin))
                }
            };
            router.route(path, method)
        })
    }

    /// Writes the description, as OpenAPI 3.1, of the routes under a base path.
    pub(super) fn description(mut self, base: &BasePath) -> Value {
        let mut shapes = self.read.take_definitions(true);
        shapes.extend(self.written.take_definitions(true));
        let mut description = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Penstock dashboard",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "The metrics of a pipeline, its live events, dead letters and message buffer.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": self.paths,
            "components": {
                "schemas": shapes,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "description": "dashboard.readToken or dashboard.adminToken"},
                    "session": {"type": "apiKey", "in": "cookie", "name": auth::COOKIE, "description": "the cookie set by POST /api/session"},
                },
            },
        });
        if !base.is_root() {
            description["servers"] = json!([{"url": base.prefix(), "description": "dashboard.basePath"}]);
        }
        description
    }
}

// === impl Operation ===

impl Operation<'_> {
    /// Says in a sentence what the route is for.
    pub(super) fn says(self, summary: &str) -> Self {
        self.told["summary"] = summary.into();
        self
    }

    /// A body of JSON is asked for.
    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        let shape = self.read.subschema_for::<T>();
        self.told["requestBody"] = json!({"required": true, "content": content("application/json", &shape)});
        self
    }

    /// A parameter of the query is looked at; `kind` is a type of JSON Schema.
    pub(super) fn query(self, name: &str, kind: &str, what: &str) -> Self {
        if let Value::Array(parameters) = &mut self.told["parameters"] {
            parameters.push(parameter(name, "query", false, what, kind));
        }
        self
    }

    /// A parameter of the query, a string, may be given more than once.
    pub(super) fn queries(self, name: &str, what: &str) -> Self {
        if let Value::Array(parameters) = &mut self.told["parameters"] {
            let mut told = parameter(name, "query", false, what, "array");
            told["schema"]["items"] = json!({"type": "string"});
            parameters.push(told);
        }
        self
    }

    /// The parameters of the query that say which dead letters are meant.
    pub(super) fn filter(self) -> Self {
        self.query("reason", "string", "the reason of a group, as it is")
            .query("type", "string", "commit, identity, account, raw or message")
            .query("did", "string", "the DID of the repo, or a pattern with * for any characters")
            .query(
                "text",
                "string",
                "text in the error, URI, DID, IDs, sequence number or consumer; * for any characters",
            )
            .query("source", "string", "redis, or postgres for those that only PostgreSQL has")
    }

    /// 200 with JSON.
    pub(super) fn answers<T: JsonSchema>(self, what: &str) -> Self {
        self.answers_with::<T>(200, what)
    }

    /// Another status with JSON.
    pub(super) fn answers_with<T: JsonSchema>(self, status: u16, what: &str) -> Self {
        let shape = self.written.subschema_for::<T>();
        self.response(status, what, &content("application/json", &shape))
    }

    /// 200 with text of another kind.
    pub(super) fn answers_text(self, kind: &str, what: &str) -> Self {
        let shape: Schema = schemars::json_schema!({"type": "string"});
        self.response(200, what, &content(kind, &shape))
    }

    /// A status without a body, or with the problem that it means here.
    pub(super) fn tells(self, status: u16, what: &str) -> Self {
        let content = if status < 400 {
            json!({})
        } else {
            content("application/problem+json", &self.written.subschema_for::<Shape>())
        };
        self.response(status, what, &content)
    }

    fn response(self, status: u16, what: &str, content: &Value) -> Self {
        self.told["responses"][status.to_string()] = json!({"description": what, "content": content});
        self
    }
}

fn content(kind: &str, shape: &Schema) -> Value {
    json!({kind: {"schema": shape}})
}

fn parameter(name: &str, place: &str, required: bool, what: &str, kind: &str) -> Value {
    json!({"name": name, "in": place, "required": required, "description": what, "schema": {"type": kind}})
}

/// The names in braces of a path.
fn named_in(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}
