package sluice;

import java.io.IOException;
import java.util.Properties;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;

/**
 * The mapping as a Kafka Streams application, exactly once.
 *
 * <p>Arguments: bootstrap, a folder, the number of threads, and twice an application id with the topic it reads and
 * the topic it writes. The first of the two warms the JVM up; a line on standard input ends it and begins the other.
 */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) throws IOException {
        try (KafkaStreams ignored = start(arguments, 3)) {
            if (System.in.read() < 0) {
                return;
            }
        }
        KafkaStreams streams = start(arguments, 6);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    }

    private static KafkaStreams start(String[] arguments, int at) {
        String raw = arguments[at + 1];
        String standardized = arguments[at + 2];
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(raw, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .process(Standardize::new)
                .to(standardized, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        KafkaStreams streams =
                new KafkaStreams(builder.build(), settings(arguments[0], arguments[1], arguments[2], arguments[at]));
        streams.start();
        return streams;
    }

    private static Properties settings(String bootstrap, String folder, String threads, String application) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, threads);
        // As the stage is told; the default of exactly once is 100 ms.
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 200);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 262_144);
        return settings;
    }

    /** One for each task, so it has a mapping of its own. */
    private static final class Standardize extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
        private final Mapping mapping = new Mapping();

        @Override
        public void process(Record<byte[], byte[]> entry) {
            RecordMetadata place = context().recordMetadata().orElseThrow();
            var run = entry.headers().lastHeader("sluice-run");
            try {
                Mapping.Result result = mapping.record(
                        entry.value(),
                        place.partition(),
                        place.offset(),
                        entry.timestamp(),
                        run == null ? null : run.value());
                // without headers, as the others write them
                context().forward(new Record<>(result.key(), result.line(), entry.timestamp()));
            } catch (IOException error) {
                throw new IllegalArgumentException("an entry of the bench cannot be read", error);
            }
        }
    }
}
