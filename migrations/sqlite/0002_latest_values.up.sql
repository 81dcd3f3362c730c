-- The latest values that lists show, as columns: a list of ten thousand runs reads no JSON.
ALTER TABLE runs ADD COLUMN latest_train_loss_nats REAL;
ALTER TABLE runs ADD COLUMN latest_tokens_per_second REAL;

UPDATE runs
SET latest_train_loss_nats = CAST(json_extract(latest_values_json, '$.train_loss_nats') AS REAL),
    latest_tokens_per_second =
        CAST(json_extract(latest_values_json, '$.tokens_per_second') AS REAL);
