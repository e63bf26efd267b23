<?php
/**
 * Tasks for a Swoole server's task workers, from a PHP without Swoole.
 *
 *     $tasks = new SwooleTask(822133180);            // the server's message_queue_key
 *     $tasks->dispatch('Hello from PHP!', 1);        // worker_num 1: its first task worker
 *
 * The 12-byte header of Swoole 1.8.7 - 4.3.1 by default, the 40-byte one of 4.8 and later with
 * headerBytes: 40. It must be the server's: docs/interop.md has both, byte by byte.
 */

declare(strict_types=1);

final class SwooleTask
{
    private const TMPFILE = 1;
    private const SERIALIZE = 2;
    private const NONBLOCK = 4;
    private const NOREPLY = 128;
    private const EVENT_TASK = 7;

    private SysvMessageQueue $queue;
    private int $taskId = 0;

    /** Without $tmpdir, tasks that do not fit into a message are refused. */
    public function __construct(int $key, private int $headerBytes = 12, private ?string $tmpdir = null)
    {
        if (!in_array($headerBytes, [12, 40], true)) {
            throw new InvalidArgumentException('a header of Swoole has 12 or 40 bytes');
        }
        $queue = msg_queue_exists($key) ? msg_get_queue($key) : false;
        if ($queue === false) {
            throw new RuntimeException("no queue $key: is the server running, with task_ipc_mode 2 or 3?");
        }
        $this->queue = $queue;
    }

    /** Send a task to the worker of that id and return the id that the task has there. */
    public function dispatch(mixed $data, int $dstWorkerId): int
    {
        $flags = self::NONBLOCK | ($this->headerBytes === 40 ? self::NOREPLY : 0);
        if (!is_string($data)) {
            $data = serialize($data);
            $flags |= self::SERIALIZE;
        }
        $file = null;
        if (strlen($data) + $this->headerBytes >= 8192) {
            $file = $this->write($data);
            $data = $this->headerBytes === 40
                ? pack('Pa256', strlen($data), $file)
                : pack('l', strlen($data)) . $file . "\0";
            $flags |= self::TMPFILE;
        }
        $message = $this->header(++$this->taskId, strlen($data), $flags) . $data;
        // The type is the worker's id + 1; false: the bytes as they are, not serialized once more.
        if (!msg_send($this->queue, $dstWorkerId + 1, $message, false, true, $error)) {
            if ($file !== null) {
                unlink($file);
            }
            throw new RuntimeException('msg_send: ' . posix_strerror($error));
        }
        return $this->taskId;
    }

    private function header(int $taskId, int $length, int $flags): string
    {
        if ($this->headerBytes === 12) {
            $length = $flags & self::TMPFILE ? 128 + 24 : $length;
            return pack('lSsCCS', $taskId, $length, 0, self::EVENT_TASK, 0, $flags);
        }
        return pack('PPVvCCvvVe', $taskId, 0, $length, 0, self::EVENT_TASK, 0, 0, $flags, 0, microtime(true));
    }

    /** Write the data where the server reads and deletes it: a file of mode 0600. */
    private function write(string $data): string
    {
        if ($this->tmpdir === null) {
            throw new LengthException('too long for a message, and no tmpdir was named');
        }
        $file = tempnam($this->tmpdir, 'swoole.task');
        if ($file === false || file_put_contents($file, $data) !== strlen($data)) {
            throw new RuntimeException("cannot write into $this->tmpdir");
        }
        return $file;
    }
}
