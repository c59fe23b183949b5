//! Public parameters of SSM, which say what the newest image is.

use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use stagely_domain::clock::Clock;

use crate::aws::{Config, actions, refusal};
use crate::{CloudError, ErrorKind, Result};

const TYPE: &str = "application/x-amz-json-1.1";
const TARGET: &str = "AmazonSSM.GetParameters";

pub(super) struct Parameters {
    client: Client,
    url: String,
    region: String,
    clock: Arc<dyn Clock>,
}

impl Parameters {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let client = Client::builder()
            .user_agent("stagely")
            .connect_timeout(config.timing.request.min(std::time::Duration::from_secs(5)))
            .timeout(config.timing.request)
            // A signature must not follow a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| CloudError::new(ErrorKind::Invalid, "set up the client", error.to_string()))?;
        let own = || {
            let domain = if config.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("https://ssm.{}.{domain}", config.region)
        };
        let url = config.endpoint.clone().map_or_else(own, |url| url.trim_end_matches('/').to_owned());
        Ok(Self { client, url: format!("{url}/"), region: config.region.clone(), clock })
    }

    /// The value of one.
    pub(super) async fn get(&self, doing: &'static str, credentials: Credentials, name: &str) -> Result<String> {
        let body = json!({"Names": [name]}).to_string();
        let unsigned = |_| CloudError::new(ErrorKind::Invalid, doing, "the request could not be signed");
        let headers = self.signed(credentials, &body).map_err(unsigned)?;
        let mut request = self.client.post(&self.url).header("content-type", TYPE).header("x-amz-target", TARGET);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let broken = |error: reqwest::Error| {
            let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable };
            CloudError::new(kind, doing, "ssm:GetParameters: no answer")
        };
        let response = request.body(body).send().await.map_err(broken)?;
        let status = response.status();
        let answer: Value = serde_json::from_slice(&response.bytes().await.map_err(broken)?).unwrap_or_default();
        read(doing, name, status, &answer)
    }

    fn signed(&self, credentials: Credentials, body: &str) -> std::result::Result<Vec<(String, String)>, String> {
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("ssm")
            .time(SystemTime::from(self.clock.now()))
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let headers = [("content-type", TYPE), ("x-amz-target", TARGET)];
        let request =
            SignableRequest::new("POST", &*self.url, headers.into_iter(), SignableBody::Bytes(body.as_bytes()))
                .map_err(|error| error.to_string())?;
        let (instructions, _) = sign(request, &parameters).map_err(|error| error.to_string())?.into_parts();
        Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

fn read(doing: &'static str, name: &str, status: StatusCode, answer: &Value) -> Result<String> {
    if !status.is_success() {
        // `com.amazonaws.ssm#InternalServerError`, or the part after the hash alone.
        let code = answer["__type"].as_str().and_then(|code| code.rsplit('#').next());
        let message = answer["message"].as_str().or(answer["Message"].as_str());
        return Err(refusal::told(doing, &actions::GET_PARAMETERS, status.as_u16(), code, message));
    }
    let Some(found) = answer["Parameters"].as_array() else {
        return Err(CloudError::new(ErrorKind::Protocol, doing, "ssm:GetParameters: an answer that is none"));
    };
    let value =
        found.iter().find(|parameter| parameter["Name"] == name).and_then(|parameter| parameter["Value"].as_str());
    value.map(str::to_owned).ok_or_else(|| {
        CloudError::new(ErrorKind::Invalid, doing, format!("there is no parameter {name} in this region"))
    })
}
