//! What to do about an error that comes of a pooler between us and PostgreSQL.

/// Names that statements are prepared under by the library that we use.
const NAMES: &str = "sqlx_s_";

/// Returns what to do about an error, told by the text that PostgreSQL or the pooler gave it; none where no pooler is to blame.
#[must_use]
pub fn advice(error: &str) -> Option<&'static str> {
    // The server's own words may be in any language: then the name tells.
    let is_of_statement = error.contains(NAMES) || error.contains("prepared statement did not exist");
    if error.contains("statement pooling mode") {
        Some(
            "the address leads to a pooler in statement mode, which has no transactions: set pool_mode to transaction or session, \
             or give the address of the server itself",
        )
    } else if is_of_statement {
        Some(
            "a pooler lends sessions to several clients and does not know which statements they prepared: with PgBouncer 1.21 or \
             later set max_prepared_statements (200, say), with an older one set pool_mode to session, or give the address of the \
             server itself",
        )
    } else if error.contains("unsupported startup parameter") {
        Some(
            "the pooler does not know a setting that the address asks for: take it out of the address, or add it to \
             ignore_startup_parameters of PgBouncer",
        )
    } else if error.contains("query_wait_timeout") {
        Some(
            "no connection of the pooler came free: raise its default_pool_size; a migration needs three connections, or \
             postgres.directUrl",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_poolers_say_what_to_do_and_others_are_left_alone() {
        for (error, word) in [
            ("error returned from database: prepared statement \"sqlx_s_3\" does not exist", "max_prepared_statements"),
            ("Prepared Statement »sqlx_s_12« existiert bereits", "max_prepared_statements"),
            (
                "bind message supplies 2 parameters, but prepared statement \"sqlx_s_1\" requires 1",
                "max_prepared_statements",
            ),
            ("prepared statement did not exist", "max_prepared_statements"),
            ("transaction blocks not allowed in statement pooling mode", "pool_mode"),
            ("unsupported startup parameter: extra_float_digits", "ignore_startup_parameters"),
            ("query_wait_timeout", "default_pool_size"),
        ] {
            assert!(advice(error).is_some_and(|advice| advice.contains(word)), "{error}");
        }
        for error in ["", "relation \"likes\" does not exist", "password authentication failed", "no such database: x"]
        {
            assert_eq!(advice(error), None, "{error}");
        }
    }
}
