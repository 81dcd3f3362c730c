-- The latest values that lists show, as columns: a list of ten thousand runs reads no JSON.
ALTER TABLE runs ADD COLUMN latest_train_loss_nats DOUBLE PRECISION;
ALTER TABLE runs ADD COLUMN latest_tokens_per_second DOUBLE PRECISION;

UPDATE runs
SET latest_train_loss_nats =
        CAST(CAST(latest_values_json AS JSON) ->> 'train_loss_nats' AS DOUBLE PRECISION),
    latest_tokens_per_second =
        CAST(CAST(latest_values_json AS JSON) ->> 'tokens_per_second' AS DOUBLE PRECISION);
