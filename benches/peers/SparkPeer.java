// Spark Streaming's word count over one socket, as its users write it, with the times at which results are there.
//
//   java ... SparkPeer PORT BATCH_MS BLOCK_MS SECONDS
//
// Words that are 19 digits are stamps: the nanoseconds since the epoch at which their line should have been sent. The
// counts of each batch are collected at the driver; what each stamp's line waited until then is printed, with the batch.
import java.time.Instant;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Pattern;
import org.apache.spark.SparkConf;
import org.apache.spark.storage.StorageLevel;
import org.apache.spark.streaming.Durations;
import org.apache.spark.streaming.api.java.JavaStreamingContext;
import org.apache.spark.streaming.scheduler.BatchInfo;
import org.apache.spark.streaming.scheduler.StreamingListener;
import org.apache.spark.streaming.scheduler.StreamingListenerBatchCompleted;
import scala.Tuple2;

public class SparkPeer {
    static final Pattern SPACE = Pattern.compile(" ");

    static long now() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000_000L + now.getNano();
    }

    /** Prints how late each batch began and how long it took. */
    public static class Batches implements StreamingListener {
        @Override
        public void onBatchCompleted(StreamingListenerBatchCompleted completed) {
            BatchInfo info = completed.batchInfo();
            if (info.numRecords() > 0) {
                System.out.printf("batch %d %d %s %s%n", info.batchTime().milliseconds(), info.numRecords(),
                    info.schedulingDelay().get(), info.processingDelay().get());
                System.out.flush();
            }
        }
    }

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        long batch = Long.parseLong(args[1]), block = Long.parseLong(args[2]), seconds = Long.parseLong(args[3]);
        SparkConf conf = new SparkConf().setAppName("peer").setMaster("local[2]")
            .set("spark.ui.enabled", "false")
            .set("spark.streaming.blockInterval", block + "ms")
            // A new data server is dialled soon after the last one has ended: that is how rates change within a run.
            .set("spark.streaming.receiverRestartDelay", "300")
            .set("spark.driver.host", "127.0.0.1").set("spark.driver.bindAddress", "127.0.0.1");
        JavaStreamingContext context = new JavaStreamingContext(conf, Durations.milliseconds(batch));
        context.ssc().addStreamingListener(new Batches());
        context.socketTextStream("127.0.0.1", port, StorageLevel.MEMORY_ONLY())
            .flatMap(line -> Arrays.asList(SPACE.split(line)).iterator())
            .mapToPair(word -> new Tuple2<>(word, 1))
            .reduceByKey(Integer::sum)
            .foreachRDD(counts -> {
                List<Tuple2<String, Integer>> rows = counts.collect();
                print(rows, now());
            });
        context.start();
        context.awaitTerminationOrTimeout(seconds * 1000);
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    static void print(List<Tuple2<String, Integer>> rows, long done) {
        StringBuilder text = new StringBuilder();
        long words = 0;
        for (Tuple2<String, Integer> row : rows) {
            String word = row._1();
            words += row._2();
            if (word.length() == 19 && word.charAt(0) == '1') {
                long micros = (done - Long.parseLong(word)) / 1000;
                for (int line = 0; line < row._2(); line++) text.append(' ').append(micros);
            }
        }
        if (words > 0) {
            System.out.println("done " + done + " " + words + text);
            System.out.flush();
        }
    }
}
