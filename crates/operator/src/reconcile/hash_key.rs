//! The operator's own key of the hashes of Secrets, which all its replicas share and which outlives them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use thiserror::Error;

use crate::context::Context;
use crate::hash::HashKey;

use super::apply;

/// The key of the Secret under which it stands.
const KEY: &str = "key";

/// Why there is no key.
#[derive(Debug, Error)]
pub(super) enum HashKeyError {
    /// The API server does not answer, or refuses it.
    #[error("could not read or create the secret {name} in the operator's namespace")]
    Api { name: String, source: Box<kube::Error> },
    /// It is another Secret.
    #[error("the secret {name} in the operator's namespace has no key of 32 bytes: delete it, and it is created again")]
    Short { name: String },
}

/// Returns the key; the first operator of all makes it.
///
/// # Errors
/// The Secret can neither be read nor be made, or holds something else.
pub(super) async fn get(context: &Context) -> Result<HashKey, HashKeyError> {
    context.hash_key.get_or_try_init(|| read_or_create(context)).await.cloned()
}

async fn read_or_create(context: &Context) -> Result<HashKey, HashKeyError> {
    let operator = &context.settings.operator;
    let name = format!("{}-hash-key", operator.lease_name);
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &operator.namespace);
    let failed = |source| HashKeyError::Api { name: name.clone(), source: Box::new(source) };
    let secret = match api.get_opt(&name).await.map_err(failed)? {
        Some(secret) => secret,
        None => match api.create(&PostParams::default(), &made(&name)).await {
            Ok(secret) => secret,
            // Another replica was faster.
            Err(error) if apply::code(&error) == 409 => api.get(&name).await.map_err(failed)?,
            Err(error) => return Err(failed(error)),
        },
    };
    let key = secret.data.as_ref().and_then(|data| HashKey::new(&data.get(KEY)?.0));
    key.ok_or(HashKeyError::Short { name })
}

fn made(name: &str) -> Secret {
    let key: [u8; HashKey::LENGTH] = rand::random();
    Secret {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(key.to_vec()))])),
        ..Secret::default()
    }
}
