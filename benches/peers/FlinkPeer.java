// Flink's word count over one socket in tumbling windows of processing time, as its users write it, with the times at
// which results are there.
//
//   java ... FlinkPeer PORT WINDOW_MS PARALLELISM SECONDS [BUFFER_MS]
//
// Words that are 19 digits are stamps: the nanoseconds since the epoch at which their line should have been sent. What
// each stamp's line waited until its count left the window is printed, four times a second.
import java.net.ConnectException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.functions.source.legacy.SocketTextStreamFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingProcessingTimeWindows;
import org.apache.flink.util.Collector;

public class FlinkPeer {
    static final AtomicLong words = new AtomicLong();
    static final Object lock = new Object();
    static List<Long> waited = new ArrayList<>();

    static long now() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000_000L + now.getNano();
    }

    /** Flink's own source of lines, which also dials again after a refusal: that is how rates change within a run. */
    static class Lines extends SocketTextStreamFunction {
        Lines(int port) {
            super("127.0.0.1", port, "\n", -1, 300);
        }

        @Override
        public void run(SourceContext<String> context) throws Exception {
            while (true) {
                try {
                    super.run(context);
                    return;
                } catch (ConnectException refused) {
                    Thread.sleep(100);
                }
            }
        }
    }

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        Duration window = Duration.ofMillis(Long.parseLong(args[1]));
        int parallelism = Integer.parseInt(args[2]);
        long end = now() + Long.parseLong(args[3]) * 1_000_000_000L;
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(parallelism, new Configuration());
        if (args.length > 4) env.setBufferTimeout(Long.parseLong(args[4]));
        DataStream<String> lines = env.addSource(new Lines(port)).setParallelism(1);
        lines
            .flatMap((String line, Collector<Tuple2<String, Integer>> out) -> {
                for (String word : line.split(" ")) out.collect(new Tuple2<>(word, 1));
            }).returns(Types.TUPLE(Types.STRING, Types.INT))
            .keyBy(count -> count.f0)
            .window(TumblingProcessingTimeWindows.of(window))
            .sum(1)
            .map(FlinkPeer::done).returns(Types.TUPLE(Types.STRING, Types.INT))
            .sinkTo(new DiscardingSink<>());
        env.executeAsync("peer");
        while (now() < end) {
            Thread.sleep(250);
            List<Long> taken;
            synchronized (lock) {
                taken = waited;
                waited = new ArrayList<>();
            }
            StringBuilder text = new StringBuilder("done " + now() + " " + words.getAndSet(0));
            for (long micros : taken) text.append(' ').append(micros);
            System.out.println(text);
            System.out.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    static Tuple2<String, Integer> done(Tuple2<String, Integer> count) {
        words.addAndGet(count.f1);
        if (count.f0.length() == 19 && count.f0.charAt(0) == '1') {
            long micros = (now() - Long.parseLong(count.f0)) / 1000;
            synchronized (lock) {
                for (int line = 0; line < count.f1; line++) waited.add(micros);
            }
        }
        return count;
    }
}
