//! The web page: files in the binary, which ask the same API as everybody else.
//!
//! It holds no credential: over the Unix socket the kernel says who asks, over TLS the client's
//! certificate. Bearer tokens are for programs: a browser sends none when it opens a page.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// Nothing from elsewhere, nothing inline, no frame around it, and no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Another version of the agent has other files.
    (header::CACHE_CONTROL, "no-cache"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

fn file(media_type: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The web page.
#[utoipa::path(get, path = "/", tag = "page",
    responses((status = 200, description = "HTML", body = String, content_type = "text/html")))]
pub(super) async fn index() -> Response {
    file("text/html; charset=utf-8", include_str!("index.html"))
}

/// Its style sheet.
#[utoipa::path(get, path = "/page/style.css", tag = "page",
    responses((status = 200, description = "CSS", body = String, content_type = "text/css")))]
pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("style.css"))
}

/// Its script.
#[utoipa::path(get, path = "/page/app.js", tag = "page",
    responses((status = 200, description = "JavaScript", body = String,
        content_type = "text/javascript")))]
pub(super) async fn app() -> Response {
    file("text/javascript; charset=utf-8", include_str!("app.js"))
}

/// What its script draws with.
#[utoipa::path(get, path = "/page/render.js", tag = "page",
    responses((status = 200, description = "JavaScript", body = String,
        content_type = "text/javascript")))]
pub(super) async fn render() -> Response {
    file("text/javascript; charset=utf-8", include_str!("render.js"))
}

/// Its icon.
#[utoipa::path(get, path = "/page/icon.svg", tag = "page",
    responses((status = 200, description = "SVG", body = String,
        content_type = "image/svg+xml")))]
pub(super) async fn icon() -> Response {
    file("image/svg+xml", include_str!("icon.svg"))
}

#[cfg(test)]
mod tests {
    const INDEX: &str = include_str!("index.html");
    const SCRIPTS: [&str; 2] = [include_str!("app.js"), include_str!("render.js")];

    #[test]
    fn the_page_is_what_its_policy_allows() {
        for forbidden in [
            "<style", " style=", " onclick", " onload", "http://", "https://",
        ] {
            assert!(!INDEX.contains(forbidden), "{forbidden}");
        }
        assert_eq!(INDEX.matches("<script").count(), 1);
        for script in SCRIPTS {
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
                "srcdoc",
                "localStorage",
                "sessionStorage",
            ] {
                assert!(!script.contains(sink), "{sink}");
            }
        }
    }

    #[test]
    fn what_the_scripts_look_for_is_in_the_page() {
        let quoted = |text: &'static str, call: &str| -> Vec<&'static str> {
            let parts = text.split(call).skip(1);
            parts.filter_map(|rest| rest.split('"').next()).collect()
        };
        let mut seen = 0;
        for script in SCRIPTS {
            for call in ["at(\"", "fill(\"", "say(\""] {
                for id in quoted(script, call) {
                    assert!(INDEX.contains(&format!("id=\"{id}\"")), "{id}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn tables_have_headers_and_sections_have_names() {
        assert_eq!(
            INDEX.matches("<th ").count(),
            INDEX.matches("<th scope=\"col\">").count()
        );
        assert_eq!(
            INDEX.matches("<table>").count(),
            INDEX.matches("<table><thead>").count()
        );
        for part in INDEX.split("aria-labelledby=\"").skip(1) {
            let id = part.split('"').next().unwrap();
            assert!(INDEX.contains(&format!("<h2 id=\"{id}\">")), "{id}");
        }
        for landmark in [
            "<header>",
            "<nav aria-label",
            "<main id=\"main\">",
            "lang=\"en\"",
        ] {
            assert!(INDEX.contains(landmark), "{landmark}");
        }
    }
}
