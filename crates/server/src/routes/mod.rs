//! The HTTP API: the list of all routes.

mod blobs;
mod body;
mod bundles;
mod chunks;
mod document;
mod events;
mod farm;
mod job_data;
mod jobs;
mod logs;
mod page;
mod refusals;
mod running;
mod shares;
mod step_files;
mod submit;
mod uploads;
mod workers;

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use kiln_api::{BUILD, Info, MAX_RECIPE, Me, OLDEST_PROTOCOL, PROTOCOL, Problem, ProblemCode};
use kiln_types::Owner;
use serde_json::Value;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement,
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use blobs::MAX_BLOB;
use document::{ABOUT, IS_CHECKED};

use crate::{
    app::{App, AppState},
    auth::{self, Gate},
    bundles::MAX_MANIFEST,
    problem::{ProblemResponse, no_such_method, no_such_route, panicked},
};

/// Bytes of a JSON body.
const MAX_JSON: usize = 2 << 20;

/// Returns the router of all routes, behind the gate.
pub(crate) fn router(app: Arc<App>, gate: Arc<Gate>) -> Router {
    let (router, _) = documented().split_for_parts();
    let router = router
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_JSON))
        .layer(middleware::map_response(add_safety_headers))
        .layer(middleware::from_fn_with_state(gate, auth::guard));
    let router = if IS_CHECKED { router.layer(middleware::from_fn(check_answer)) } else { router };
    router.layer(CatchPanicLayer::custom(panicked)).with_state(app)
}

/// Returns the document as the routes declare it.
fn declared() -> OpenApi {
    documented().split_for_parts().1
}

/// The complete document, made once.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document::complete(&declared()));

/// Returns the OpenAPI document of this server.
pub fn openapi_json() -> String {
    let mut json = serde_json::to_string_pretty(&*DOCUMENT).unwrap_or_default();
    json.push('\n');
    json
}

/// Answers 500 instead of an answer that the document does not list, so that a test fails.
async fn check_answer(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().replace("{*", "{"));
    let method = request.method().clone();
    let response = next.run(request).await;
    let undocumented =
        route.and_then(|route| document::find_undocumented(&DOCUMENT, &route, &method, &response));
    match undocumented {
        None => response,
        Some(why) => {
            ProblemResponse::internal("An answer is not in the OpenAPI document", why).into_response()
        }
    }
}

/// Answers if the server runs. Needs no key.
#[utoipa::path(get, path = "/healthz", tag = "server", security(()),
    responses((status = 200, body = String, content_type = "text/plain", description = "The server runs")))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// This document. Needs no key.
#[utoipa::path(get, path = "/api/openapi.json", tag = "server", security(()),
    responses((status = 200, body = Value, content_type = "application/json", description = "OpenAPI 3.1")))]
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json()).into_response()
}

fn documented() -> OpenApiRouter<Arc<App>> {
    let mut about = OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Kiln").version(BUILD).description(Some(ABOUT)))
        .components(Some(
            ComponentsBuilder::new().schema_from::<Problem>().schema_from::<ProblemCode>().build(),
        ))
        .security(Some([SecurityRequirement::new("key", [""; 0])]))
        .build();
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The farm key.")).build();
    about.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(key));
    OpenApiRouter::with_openapi(about)
        .routes(routes!(healthz))
        .routes(routes!(openapi))
        .routes(routes!(info))
        .routes(routes!(me))
        .routes(routes!(uploads::create))
        .routes(routes!(uploads::get, uploads::append, uploads::delete))
        .routes(routes!(uploads::finish))
        .routes(routes!(blobs::missing))
        .routes(routes!(blobs::get, blobs::head, blobs::put))
        .routes(routes!(chunks::missing))
        .routes(routes!(chunks::put))
        .routes(routes!(chunks::fetch))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(chunks::recipe, chunks::put_recipe))
                .layer(DefaultBodyLimit::max(MAX_RECIPE)),
        )
        .merge(
            OpenApiRouter::new().routes(routes!(bundles::create)).layer(DefaultBodyLimit::max(MAX_MANIFEST)),
        )
        .routes(routes!(bundles::get))
        .routes(routes!(submit::create, jobs::list))
        .routes(routes!(jobs::get, jobs::change, jobs::delete))
        .routes(routes!(jobs::pause))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::explain))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::rerender))
        .routes(routes!(jobs::extend))
        .routes(routes!(jobs::add_step))
        .routes(routes!(jobs::archive))
        .routes(routes!(jobs::unarchive))
        .routes(routes!(jobs::fetched))
        .routes(routes!(running::of_farm))
        .routes(routes!(running::of_job))
        .routes(routes!(job_data::tasks))
        .routes(routes!(job_data::attempts))
        .routes(routes!(job_data::outputs))
        .routes(routes!(step_files::list))
        .routes(routes!(job_data::report))
        .routes(routes!(job_data::file))
        .routes(routes!(logs::of_job))
        .routes(routes!(logs::of_attempt))
        .routes(routes!(farm::collect))
        .routes(routes!(shares::users))
        .routes(routes!(shares::set_user))
        .routes(routes!(shares::projects))
        .routes(routes!(shares::set_project))
        .routes(routes!(shares::limits))
        .routes(routes!(shares::set_limit, shares::remove_limit))
        .routes(routes!(workers::list))
        .routes(routes!(workers::get, workers::remove))
        .routes(routes!(workers::pause))
        .routes(routes!(workers::resume))
        .routes(routes!(workers::drain))
        .routes(routes!(workers::stop))
        .routes(routes!(workers::pools))
        .routes(routes!(workers::unquarantine))
        .routes(routes!(workers::wake))
        .routes(routes!(workers::link))
        .routes(routes!(events::follow))
}

/// The version of the server. Needs no key.
#[utoipa::path(get, path = "/api/v1/info", tag = "server", security(()), responses((status = 200, body = Info)))]
async fn info() -> axum::Json<Info> {
    axum::Json(Info {
        program: "kiln".to_owned(),
        build: BUILD.to_owned(),
        protocol: PROTOCOL,
        oldest_protocol: OLDEST_PROTOCOL,
    })
}

/// The owner of the key.
#[utoipa::path(get, path = "/api/v1/me", tag = "server",
    responses((status = 200, body = Me)))]
async fn me(State(app): AppState) -> axum::Json<Me> {
    axum::Json(Me { owner: Owner::default(), epoch: app.store.epoch() })
}

/// Adds headers by which browsers never guess the type of an answer, and never cache it.
async fn add_safety_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
