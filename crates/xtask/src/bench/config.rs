//! The configuration of each proxy: as equal in what they do as their options allow.
//!
//! All of them route by host, set the forwarded fields and a request id, keep connections to the origin, and have one
//! worker. Limits that would close connections during a measurement are lifted.

use super::peer::{HTTP_PORT, HTTPS_PORT, Setup};
use std::fmt::Write;
use std::path::Path;

/// Where the origin listens.
pub(super) const ORIGIN_PORT: u16 = 19000;
/// Where the origin that also speaks TLS and HTTP/2 listens.
pub(super) const ORIGIN_TLS_PORT: u16 = 19001;
pub(super) const ORIGIN_H2C_PORT: u16 = 19002;

/// Indents a file for a YAML block.
fn block(path: &Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?
        .trim_end()
        .replace('\n', "\n    "))
}

/// Manifests for Tidegate: a Service, and an Ingress for each host.
pub(super) fn tidegate(setup: &Setup, certificates: &Path) -> std::io::Result<String> {
    let protocol = setup.app_protocol.map_or(String::new(), |protocol| {
        format!(", appProtocol: {protocol}")
    });
    let mut out = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: origin}}\nspec: {{ports: [{{port: 80{protocol}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: origin, labels: {{kubernetes.io/service-name: origin}}}}\n\
         addressType: IPv4\nports: [{{port: {}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n",
        setup.origin
    );
    let mut annotations = String::new();
    for (name, value) in &setup.annotations {
        // Writing to a String cannot fail.
        let _ = write!(annotations, "tidegate.dev/{name}: \"{value}\", ");
    }
    for host in 0..setup.hosts {
        let tls = if setup.tls {
            format!("\n  tls: [{{hosts: [h{host}.bench.test], secretName: bench}}]")
        } else {
            String::new()
        };
        let _ = write!(
            out,
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: h{host}, annotations: {{{annotations}}}}}\nspec:{tls}\n  rules:\n  \
             - host: h{host}.bench.test\n    \
             http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: origin, port: {{number: 80}}}}}}}}]}}\n"
        );
    }
    if setup.tls {
        let certificate = block(&certificates.join("tls.crt"))?;
        let _ = write!(
            out,
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: bench}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {certificate}\n  \
             tls.key: |\n    {}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: clients}}\nstringData:\n  ca.crt: |\n    {certificate}\n",
            block(&certificates.join("tls.key"))?
        );
    }
    Ok(out)
}

/// nginx in front of the origin.
pub(super) fn nginx(setup: &Setup, certificates: &Path, access_log: Option<&str>) -> String {
    let access = access_log.map_or("access_log off".to_owned(), |path| {
        format!("access_log {path} json buffer=16k flush=1s")
    });
    let mut names = String::new();
    for host in 0..setup.hosts {
        let _ = write!(names, " h{host}.bench.test");
    }
    let tls = if setup.tls {
        let at = certificates.display();
        format!(
            "listen 127.0.0.1:{HTTPS_PORT} ssl http2 backlog=4096;\n    ssl_certificate {at}/tls.crt;\n    ssl_certificate_key {at}/tls.key;\n    \
             ssl_protocols TLSv1.2 TLSv1.3;\n    ssl_session_cache shared:SSL:10m;\n    "
        )
    } else {
        String::new()
    };
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr error;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 13000; }}\n\
         http {{\n  server_names_hash_max_size 131072;\n  server_names_hash_bucket_size 128;\n  keepalive_requests 100000000;\n  keepalive_timeout 75s;\n  \
         log_format json escape=json '{{\"time\":\"$time_iso8601\",\"client\":\"$remote_addr\",\"request_id\":\"$request_id\",\"method\":\"$request_method\",\
         \"scheme\":\"$scheme\",\"host\":\"$http_host\",\"path\":\"$request_uri\",\"protocol\":\"$server_protocol\",\"status\":$status,\
         \"request_bytes\":$request_length,\"response_bytes\":$body_bytes_sent,\"duration\":$request_time,\"user_agent\":\"$http_user_agent\",\
         \"upstream\":\"$upstream_addr\",\"upstream_duration\":\"$upstream_response_time\"}}';\n  {access};\n  \
         upstream origin {{ server 127.0.0.1:{}; keepalive 2048; keepalive_requests 100000000; }}\n  server {{\n    \
         listen 127.0.0.1:{HTTP_PORT} backlog=4096;\n    {tls}\
         server_name{names};\n    location / {{\n      proxy_pass http://origin;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      \
         proxy_set_header Host $host;\n      proxy_set_header X-Forwarded-For $remote_addr;\n      proxy_set_header X-Real-IP $remote_addr;\n      \
         proxy_set_header X-Forwarded-Proto $scheme;\n      proxy_set_header X-Forwarded-Host $host;\n      proxy_set_header X-Forwarded-Port $server_port;\n      \
         proxy_set_header X-Request-ID $request_id;\n    }}\n  }}\n}}\n",
        setup.origin
    )
}

/// nginx as an origin that speaks what `origin.c` does not: HTTP/1.1, HTTP/1.1 and HTTP/2 over TLS, HTTP/2 in the clear.
pub(super) fn nginx_origin(certificates: &Path) -> String {
    let at = certificates.display();
    let body = "x".repeat(128);
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid origin.pid;\nerror_log stderr error;\nevents {{ worker_connections 9000; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 100000000;\n  default_type text/plain;\n  ssl_certificate {at}/tls.crt;\n  \
         ssl_certificate_key {at}/tls.key;\n  server {{\n    listen 127.0.0.1:{ORIGIN_PORT};\n    listen 127.0.0.1:{ORIGIN_TLS_PORT} ssl;\n    \
         listen 127.0.0.1:{ORIGIN_H2C_PORT} http2;\n    location / {{ return 200 '{body}'; }}\n  }}\n}}\n"
    )
}

/// HAProxy, and its map of hosts.
pub(super) fn haproxy(setup: &Setup, certificates: &Path, map: &Path) -> std::io::Result<String> {
    let mut lines = String::new();
    for host in 0..setup.hosts {
        let _ = writeln!(lines, "h{host}.bench.test origin");
    }
    std::fs::write(map, lines)?;
    let tls = if setup.tls {
        // Not `tls.pem.key`, which HAProxy would look for beside it.
        format!(
            "  bind 127.0.0.1:{HTTPS_PORT} backlog 4096 ssl crt {} alpn h2,http/1.1 ssl-min-ver TLSv1.2\n",
            certificates.join("both.pem").display()
        )
    } else {
        String::new()
    };
    Ok(format!(
        "global\n  nbthread 1\n  no strict-limits\n  maxconn 12000\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 75s\n  timeout server 60s\n  http-reuse always\n\
         frontend front\n  bind 127.0.0.1:{HTTP_PORT} backlog 4096\n{tls}  http-request set-header X-Forwarded-For %[src]\n  http-request set-header X-Real-IP %[src]\n  \
         http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]\n  http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
         http-request set-header X-Forwarded-Port %[dst_port]\n  http-request set-header X-Request-ID %[uuid()]\n  \
         use_backend %[req.hdr(host),lower,map_str({},none)]\nbackend origin\n  server o 127.0.0.1:{} pool-max-conn 2048\nbackend none\n  http-request deny deny_status 404\n",
        map.display(),
        setup.origin
    ))
}

/// Envoy, with its circuit breakers out of the way.
pub(super) fn envoy(setup: &Setup, certificates: &Path) -> String {
    let mut hosts = String::new();
    for host in 0..setup.hosts {
        let _ = write!(
            hosts,
            "\n            - {{name: h{host}, domains: [h{host}.bench.test], routes: [{{match: {{prefix: /}}, route: {{cluster: origin}}}}]}}"
        );
    }
    let add = |name: &str, value: &str| {
        format!(
            "{{header: {{key: {name}, value: \"{value}\"}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}"
        )
    };
    let add = [
        add("X-Real-IP", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        add("X-Forwarded-Host", "%REQ(:AUTHORITY)%"),
        add("X-Forwarded-Port", "%DOWNSTREAM_LOCAL_PORT%"),
    ]
    .join(", ");
    let listener = |name: &str, port: u16, tls: &str| {
        format!(
            "  - name: {name}\n    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n    tcp_backlog_size: 4096\n    filter_chains:\n    \
             - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
             stat_prefix: {name}\n          use_remote_address: true\n          http_filters:\n          - name: envoy.filters.http.router\n            typed_config:\n              \
             \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n          route_config:\n            \
             request_headers_to_add: [{add}]\n            virtual_hosts:{hosts}\n{tls}"
        )
    };
    let tls = format!(
        "      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n          \
         common_tls_context:\n            alpn_protocols: [h2, http/1.1]\n            tls_params: {{tls_minimum_protocol_version: TLSv1_2}}\n            \
         tls_certificates: [{{certificate_chain: {{filename: {0}/tls.crt}}, private_key: {{filename: {0}/tls.key}}}}]\n",
        certificates.display()
    );
    let mut listeners = listener("http", HTTP_PORT, "");
    if setup.tls {
        listeners += &listener("https", HTTPS_PORT, &tls);
    }
    format!(
        "static_resources:\n  listeners:\n{listeners}  clusters:\n  - name: origin\n    connect_timeout: 2s\n    type: STATIC\n    circuit_breakers: {{thresholds: [\
         {{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}]}}\n    load_assignment: {{cluster_name: origin, endpoints: [{{lb_endpoints: \
         [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}\n",
        setup.origin
    )
}
